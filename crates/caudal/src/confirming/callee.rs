//! Which of the things that can be called a `confirm` section calls.

use anyhow::{Result, bail};

use super::{Confirm, SQL_CONNECTIONS};

/// What confirms a topic's transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callee {
    Url,
    Command,
    Function,
    Sql,
}

impl Callee {
    /// The setting that names it.
    fn setting(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Command => "command",
            Self::Function => "function",
            Self::Sql => "sql_function",
        }
    }
}

impl Confirm {
    /// What is called. Settings that belong to something else are refused: whoever wrote them expects them to do something.
    pub(crate) fn callee(&self) -> Result<Callee> {
        let callees = [
            (Callee::Url, self.url.is_some()),
            (Callee::Command, !self.command.is_empty()),
            (Callee::Function, self.function.is_some()),
            (Callee::Sql, self.sql_function.is_some()),
        ];
        let named: Vec<Callee> = callees.into_iter().filter(|(_, is_set)| *is_set).map(|(callee, _)| callee).collect();
        let [callee] = named[..] else {
            let words = callees.map(|(callee, _)| callee.setting()).join(", ");
            match named.is_empty() {
                true => bail!("nothing is called: set one of {words}"),
                false => bail!("several things are called: set only one of {words}"),
            }
        };
        let stray = self.settings_of_one().into_iter().find(|(_, is_set, of)| *is_set && !of.contains(&callee));
        if let Some((name, _, of)) = stray {
            let owners: Vec<&str> = of.iter().map(|callee| callee.setting()).collect();
            bail!("{name} goes with {}, and this section has {}", owners.join(" or "), callee.setting());
        }
        Ok(callee)
    }

    /// Settings with a meaning for some callees only, and whether they are set.
    fn settings_of_one(&self) -> Vec<(&'static str, bool, &'static [Callee])> {
        use Callee::{Command, Function, Sql, Url};
        const CODES: &[Callee] = &[Url, Command];
        vec![
            ("headers", !self.headers.is_empty(), &[Url]),
            ("body", self.body.is_some(), &[Url]),
            ("probe_url", self.probe_url.is_some(), &[Url]),
            ("signing_secret", self.signing_secret.is_some(), &[Url]),
            ("client_certificate", self.client_certificate.is_some(), &[Url]),
            ("client_key", self.client_key.is_some(), &[Url]),
            ("authority", self.authority.is_some(), &[Url]),
            ("allow_private", self.allow_private.is_some(), &[Url]),
            ("probe_command", !self.probe_command.is_empty(), &[Command]),
            ("function_region", self.function_region.is_some(), &[Function]),
            ("function_endpoint", self.function_endpoint.is_some(), &[Function]),
            ("function_probes", self.function_probes, &[Function]),
            ("sql_url", self.sql_url.is_some(), &[Sql]),
            ("sql_probe", self.sql_probe.is_some(), &[Sql]),
            ("sql_connections", self.sql_connections != SQL_CONNECTIONS, &[Sql]),
            ("success", !self.success.is_empty(), CODES),
            ("rejected", !self.rejected.is_empty(), CODES),
            ("retry", !self.retry.is_empty(), CODES),
            ("in_progress", !self.in_progress.is_empty(), CODES),
            ("not_found", !self.not_found.is_empty(), CODES),
            ("success_when", self.success_when.is_some(), CODES),
            ("rejected_when", self.rejected_when.is_some(), CODES),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callee(section: &str) -> Result<Callee, String> {
        toml::from_str::<Confirm>(section).expect("a section").callee().map_err(|error| error.to_string())
    }

    #[test]
    fn one_thing_is_called() {
        assert_eq!(callee("url = \"https://h/\""), Ok(Callee::Url));
        assert_eq!(callee("command = [\"confirm\"]"), Ok(Callee::Command));
        assert_eq!(callee("function = \"confirm\""), Ok(Callee::Function));
        assert_eq!(callee("sql_function = \"billing.confirm\""), Ok(Callee::Sql));
        let said = callee("").expect_err("refused");
        assert!(said.contains("set one of url, command, function, sql_function"), "{said}");
        let said = callee("url = \"https://h/\"\nfunction = \"f\"").expect_err("refused");
        assert!(said.contains("only one"), "{said}");
    }

    /// Else a transaction in doubt would be held, with the probe beside it.
    #[test]
    fn whatever_can_be_asked_is_asked() {
        for section in [
            "url = \"https://h/\"\nprobe_url = \"https://h/\"",
            "command = [\"c\"]\nprobe_command = [\"c\"]",
            "function = \"f\"\nfunction_probes = true",
            "sql_function = \"f\"\nsql_probe = \"g\"",
        ] {
            let confirm: Confirm = toml::from_str(section).expect("a section");
            assert!(confirm.policy().expect("a policy").repeat.probe, "{section}");
        }
        let confirm: Confirm = toml::from_str("sql_function = \"f\"").expect("a section");
        assert!(!confirm.policy().expect("a policy").repeat.probe);
    }

    #[test]
    fn settings_of_something_else_are_refused() {
        for (section, name) in [
            ("command = [\"c\"]\nprobe_url = \"https://h/\"", "probe_url goes with url"),
            ("url = \"https://h/\"\nfunction_probes = true", "function_probes goes with function"),
            ("function = \"f\"\nretry = [\"429\"]", "retry goes with url or command"),
            ("function = \"f\"\nsql_probe = \"g\"", "sql_probe goes with sql_function"),
            ("function = \"f\"\nprobe_command = [\"c\"]", "probe_command goes with command"),
        ] {
            let said = callee(section).expect_err(section);
            assert!(said.contains(name), "{said}");
        }
    }
}
