//! Which addresses may be reached: a confirmation goes to a bank, not to what stands beside Caudal.
//!
//! The ranges are IANA's special-purpose registries for IPv4 and IPv6, and where clouds keep their metadata.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Public,
    /// One's own machine or network: only where the configuration says so.
    Private,
    /// Never an endpoint, whatever the configuration says: link-local, where credentials of the machine can be had, multicast,
    /// ranges that lead nowhere.
    Never,
}

pub(super) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(address) => place_v4(address),
        IpAddr::V6(address) => place_v6(address),
    }
}

/// Metadata services outside of link-local: Alibaba's and Azure's; AWS's, its pods', and Google's by IPv6.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn place_v4(address: Ipv4Addr) -> Place {
    if METADATA_V4.contains(&address) {
        return Place::Never;
    }
    match address.octets() {
        [0 | 224..=255, ..] | [169, 254, ..] | [192, 0, 0, _] | [192, 88, 99, _] => Place::Never,
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Place::Private,
        // Benchmarks and documentation: whoever answers there is in one's own network.
        [198, 18 | 19, ..] | [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Place::Private,
        _ => Place::Public,
    }
}

fn place_v6(address: Ipv6Addr) -> Place {
    if METADATA_V6.contains(&address) {
        return Place::Never;
    }
    if let Some(mapped) = address.to_ipv4_mapped() {
        return place_v4(mapped);
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Place::Private,
        // NAT64: what a resolver for networks without IPv4 makes of an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            place_v4(Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)))
        }
        [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Place::Private,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Place::Private,
        // Teredo and the rest of IETF's protocol block; 6to4, which has an IPv4 address inside.
        [0x2001, 0..=0x01ff, ..] | [0x2002, ..] => Place::Never,
        [0x2000..=0x3fff, ..] => Place::Public,
        _ => Place::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_is_where_it_belongs() {
        let table = [
            ("93.184.216.34", Place::Public),
            ("8.8.8.8", Place::Public),
            ("172.15.255.255", Place::Public),
            ("172.32.0.0", Place::Public),
            ("100.63.255.255", Place::Public),
            ("100.128.0.0", Place::Public),
            ("198.20.0.0", Place::Public),
            ("127.0.0.1", Place::Private),
            ("127.255.255.254", Place::Private),
            ("10.1.2.3", Place::Private),
            ("172.16.0.1", Place::Private),
            ("172.31.255.255", Place::Private),
            ("192.168.1.1", Place::Private),
            ("100.64.0.1", Place::Private),
            ("198.18.0.1", Place::Private),
            ("203.0.113.9", Place::Private),
            ("0.0.0.0", Place::Never),
            ("0.1.2.3", Place::Never),
            ("169.254.169.254", Place::Never),
            ("169.254.170.2", Place::Never),
            ("100.100.100.200", Place::Never),
            ("168.63.129.16", Place::Never),
            ("192.0.0.192", Place::Never),
            ("224.0.0.1", Place::Never),
            ("240.0.0.1", Place::Never),
            ("255.255.255.255", Place::Never),
            ("2606:2800:220:1:248:1893:25c8:1946", Place::Public),
            ("2a00:1450::1", Place::Public),
            ("64:ff9b::8.8.8.8", Place::Public),
            ("::ffff:8.8.8.8", Place::Public),
            ("::1", Place::Private),
            ("fc00::1", Place::Private),
            ("fd12:3456::1", Place::Private),
            ("fec0::1", Place::Private),
            ("2001:db8::1", Place::Private),
            ("64:ff9b:1::1", Place::Private),
            ("::ffff:127.0.0.1", Place::Private),
            ("::ffff:10.0.0.1", Place::Private),
            ("64:ff9b::10.0.0.1", Place::Private),
            ("64:ff9b::127.0.0.1", Place::Private),
            ("::", Place::Never),
            ("::127.0.0.1", Place::Never),
            ("::8.8.8.8", Place::Never),
            ("::ffff:169.254.169.254", Place::Never),
            ("64:ff9b::169.254.169.254", Place::Never),
            ("::ffff:0.0.0.0", Place::Never),
            ("::ffff:0:127.0.0.1", Place::Never),
            ("fe80::1", Place::Never),
            ("febf::1", Place::Never),
            ("fd00:ec2::254", Place::Never),
            ("fd20:ce::254", Place::Never),
            ("ff02::1", Place::Never),
            ("2001::1", Place::Never),
            ("2002:7f00:1::", Place::Never),
            ("100::1", Place::Never),
            ("5f00::1", Place::Never),
        ];
        for (address, expected) in table {
            assert_eq!(place(address.parse().expect(address)), expected, "{address}");
        }
    }
}
