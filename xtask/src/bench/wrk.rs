//! `wrk`, told what to send by a small script.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::process::{need, timed};

/// What one run saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

const DONE: &str = r#"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration, e.status,
    e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"#;

/// Flights that nobody has sent before: `series` tells runs apart, threads take their own ranges.
pub(super) fn unique_flights(series: u32, prefer: Option<&str>) -> String {
    let mut script = String::new();
    let _ = writeln!(
        script,
        "local threads = 0\nfunction setup(thread) thread:set('id', threads); threads = threads + 1 end"
    );
    let _ = writeln!(script, "wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'");
    if let Some(prefer) = prefer {
        let _ = writeln!(script, "wrk.headers['Prefer'] = '{prefer}'");
    }
    script.push_str(
        r#"
local head = '{"year":2013,"month":1,"day":1,"dep_time":517,"sched_dep_time":515,"dep_delay":2,"arr_time":830,' ..
  '"sched_arr_time":819,"arr_delay":11,"carrier":"UA","flight":'
local tail = ',"tailnum":"N14228","origin":"EWR","dest":"IAH","air_time":227,"distance":1400,"hour":5,"minute":15,' ..
  '"time_hour":"2013-01-01T10:00:00Z"}'
local n
function request()
  n = (n or (SERIES * 10 + id) * 10000000) + 1
  return wrk.format(nil, nil, nil, head .. string.format('%d', n) .. tail)
end
"#
        .replace("SERIES", &series.to_string())
        .as_str(),
    );
    script + DONE
}

/// `GET`s of the paths in a file, in random order.
pub(super) fn paths(file: &Path) -> String {
    let load = r#"
local paths = {}
function init(args)
  for line in io.lines(FILE) do paths[#paths + 1] = line end
  math.randomseed(os.time() + tonumber(tostring(paths):match('0x(%x+)'), 16) % 65536)
end
function request() return wrk.format('GET', paths[math.random(#paths)]) end
"#;
    load.replace("FILE", &format!("{:?}", file.display().to_string())) + DONE
}

/// Runs `script` against `url` for a time. An answer of 4xx or 5xx, or a broken connection, fails the run.
pub(super) fn run(work: &Path, url: &str, script: &str, connections: usize, seconds: u32) -> Result<Rate> {
    need("wrk", "wrk")?;
    let file = work.join("wrk.lua");
    std::fs::write(&file, script)?;
    let mut wrk = Command::new("wrk");
    wrk.args([
        format!("-t{}", connections.min(2)),
        format!("-c{connections}"),
        format!("-d{seconds}s"),
        "--timeout=20s".into(),
    ]);
    let (output, _) = timed(wrk.arg("--latency").arg("-s").arg(&file).arg(url))?;
    parse(&output)
}

fn parse(output: &str) -> Result<Rate> {
    let line = output.lines().find_map(|line| line.strip_prefix("RESULT ")).with_context(|| output.to_owned())?;
    let numbers: Vec<f64> = line.split(' ').map(|n| n.parse().unwrap_or(f64::NAN)).collect();
    let [requests, micros, refused, broken, p50, p99] = numbers[..] else { anyhow::bail!("unexpected: {line}") };
    ensure!(refused == 0.0 && broken == 0.0, "wrk saw {refused} refusals and {broken} broken connections:\n{output}");
    Ok(Rate { per_second: requests / micros * 1e6, p50_ms: p50 / 1e3, p99_ms: p99 / 1e3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_and_a_refusal_fails() {
        let rate = parse("x\nRESULT 3000 2000000 0 0 1500 9000\n").unwrap();
        assert_eq!((rate.per_second, rate.p50_ms, rate.p99_ms), (1500.0, 1.5, 9.0));
        assert!(parse("RESULT 3000 2000000 1 0 1500 9000\n").is_err());
        assert!(parse("RESULT 3000 2000000 0 1 1500 9000\n").is_err());
        assert!(parse("nothing").is_err());
    }
}
