//! What confirmations cost a month, by how they are deployed: arithmetic over measured arrivals, prices and assumptions. No price is in
//! here. Money is US dollars, a month is 730 hours.

use serde::{Deserialize, Serialize};

const HOURS_A_MONTH: f64 = 730.0;
const SECONDS_AN_HOUR: f64 = 3600.0;
/// Aurora's capacity moves in halves of a unit.
const CAPACITY_STEP: f64 = 0.5;

/// What has to be confirmed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Load {
    /// Transactions that became pending in each hour of some time, those without any included. Stands for every month.
    #[serde(skip)]
    pub hours: Vec<u64>,
    /// Calls and probes until a transaction is settled; 1 when nothing fails.
    pub calls_per_transaction: f64,
    /// How long the endpoint takes.
    pub call_seconds: f64,
}

/// What one of each costs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    pub lambda_request: f64,
    pub lambda_gb_second: f64,
    pub states_transition: f64,
    pub scheduler_invocation: f64,
    pub dynamodb_write_unit: f64,
    pub dynamodb_read_unit: f64,
    pub dynamodb_gb_month: f64,
    pub fargate_vcpu_hour: f64,
    pub fargate_gb_hour: f64,
    pub aurora_acu_hour: f64,
    pub aurora_instance_hour: f64,
    pub aurora_io: f64,
    pub aurora_gb_month: f64,
    pub vm_hour: f64,
    pub vm_disk_gb_month: f64,
    pub vm_address_hour: f64,
}

/// What nobody has measured here. Every one is shown beside the result, and can be set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Assumptions {
    /// Of the state machine, which also starts when there is nothing to do.
    pub minutes_between_executions: f64,
    pub transitions_per_execution: f64,
    /// What one function is started for, and how many one execution starts at most (deploy/step-functions).
    pub transactions_per_function: f64,
    pub functions_per_execution: f64,
    pub transactions_per_batch: f64,
    /// By one function or by one container.
    pub calls_at_once: f64,
    pub function_memory_gb: f64,
    /// Of each invocation, and of a batch beside its calls.
    pub step_seconds: f64,
    pub batch_overhead_seconds: f64,
    /// docs/adr/0021: a transaction that is confirmed at once, each failed call, and a batch.
    pub writes_per_transaction: f64,
    pub writes_per_failed_call: f64,
    pub writes_per_batch: f64,
    pub reads_per_transaction: f64,
    pub reads_per_execution: f64,
    /// A record and its confirmation, kept for this long.
    pub kilobytes_per_transaction: f64,
    pub months_kept: f64,
    pub container_vcpu: f64,
    pub container_gb: f64,
    pub calls_per_second_per_container: f64,
    pub capacity_units_min: f64,
    pub calls_per_second_per_capacity_unit: f64,
    pub ios_per_transaction: f64,
    /// Of `caudal confirm once`, and what a task is billed for at least.
    pub minutes_between_runs: f64,
    pub task_start_seconds: f64,
    pub task_seconds_min: f64,
    /// Without a connection, until the database sleeps.
    pub pause_after_seconds: f64,
    pub vm_disk_gb: f64,
}

impl Default for Assumptions {
    fn default() -> Self {
        Self {
            minutes_between_executions: 5.0,
            transitions_per_execution: 6.0,
            transactions_per_function: 1_000.0,
            functions_per_execution: 10.0,
            transactions_per_batch: 100.0,
            calls_at_once: 20.0,
            function_memory_gb: 0.25,
            step_seconds: 0.2,
            batch_overhead_seconds: 0.1,
            writes_per_transaction: 4.0,
            writes_per_failed_call: 2.0,
            writes_per_batch: 6.0,
            reads_per_transaction: 1.0,
            reads_per_execution: 24.0,
            kilobytes_per_transaction: 1.0,
            months_kept: 1.0,
            container_vcpu: 0.25,
            container_gb: 0.5,
            calls_per_second_per_container: 500.0,
            capacity_units_min: 0.5,
            calls_per_second_per_capacity_unit: 500.0,
            ios_per_transaction: 2.0,
            minutes_between_runs: 60.0,
            task_start_seconds: 30.0,
            task_seconds_min: 60.0,
            pause_after_seconds: 300.0,
            vm_disk_gb: 20.0,
        }
    }
}

/// What one deployment costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bill {
    pub deployment: &'static str,
    pub what: &'static str,
    pub usd_per_month: f64,
    pub usd_per_million: f64,
    pub lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub of: &'static str,
    /// How many a month.
    pub amount: f64,
    pub usd_per_month: f64,
}

/// A load that nothing can be computed from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("nothing arrived in the time that was looked at, so there is nothing to divide the cost by")]
    Nothing,
    #[error("{0} must be above 0")]
    NotPositive(&'static str),
}

impl Load {
    pub fn transactions_per_month(&self) -> f64 {
        self.per_month(|n| n)
    }

    /// The sum over a month of something that depends on an hour's arrivals.
    fn per_month(&self, of: impl Fn(f64) -> f64) -> f64 {
        let hours: f64 = self.hours.iter().map(|n| of(*n as f64)).sum();
        hours * HOURS_A_MONTH / self.hours.len() as f64
    }

    fn busiest_hour(&self) -> f64 {
        self.hours.iter().max().copied().unwrap_or_default() as f64
    }

    fn calls(&self, transactions: f64) -> f64 {
        transactions * self.calls_per_transaction
    }
}

/// The bill of each deployment.
///
/// # Errors
/// When the load or an assumption makes no sense.
pub fn bills(load: &Load, prices: &Prices, assumed: &Assumptions) -> Result<Vec<Bill>, Unusable> {
    if load.hours.iter().all(|n| *n == 0) {
        return Err(Unusable::Nothing);
    }
    for (name, value) in [
        ("calls per transaction", load.calls_per_transaction),
        ("the time of a call", load.call_seconds),
        ("minutes_between_executions", assumed.minutes_between_executions),
        ("minutes_between_runs", assumed.minutes_between_runs),
        ("transactions_per_function", assumed.transactions_per_function),
        ("functions_per_execution", assumed.functions_per_execution),
        ("transactions_per_batch", assumed.transactions_per_batch),
        ("calls_at_once", assumed.calls_at_once),
        ("calls_per_second_per_container", assumed.calls_per_second_per_container),
        ("calls_per_second_per_capacity_unit", assumed.calls_per_second_per_capacity_unit),
    ] {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Unusable::NotPositive(name));
        }
    }
    let month = Month { load, prices, assumed };
    Ok(vec![
        month.serverless(),
        month.container_and_serverless_database(),
        month.container_and_instance(),
        month.schedule(),
        month.machine(),
    ])
}

struct Month<'a> {
    load: &'a Load,
    prices: &'a Prices,
    assumed: &'a Assumptions,
}

impl Month<'_> {
    /// Lambda, Step Functions and DynamoDB.
    fn serverless(&self) -> Bill {
        let (load, price, a) = (self.load, self.prices, self.assumed);
        let per_hour = 60.0 / a.minutes_between_executions;
        let executions = per_hour * HOURS_A_MONTH;
        // As many executions find something as are hit by arrivals at random; from then on there are more functions, and full batches.
        let hit = |n: f64| per_hour * (1.0 - (-n / per_hour).exp());
        let functions = load.per_month(|n| {
            let full = f64::min(n / a.transactions_per_function, per_hour * a.functions_per_execution);
            f64::max(hit(n), full)
        });
        let batches = load.per_month(|n| f64::max(hit(n), n / a.transactions_per_batch));
        let invocations = 2.0 * executions + functions;
        let transactions = load.transactions_per_month();
        let calling_seconds = load.calls(transactions) * load.call_seconds / a.calls_at_once;
        let function_seconds = invocations * a.step_seconds + calling_seconds + batches * a.batch_overhead_seconds;
        let failed = load.calls(transactions) - transactions;
        let writes =
            transactions * a.writes_per_transaction + failed * a.writes_per_failed_call + batches * a.writes_per_batch;
        let reads = transactions * a.reads_per_transaction + executions * a.reads_per_execution;
        let lines = [
            ("state transitions", executions * a.transitions_per_execution + functions, price.states_transition),
            ("function requests", invocations, price.lambda_request),
            ("function GB-seconds", function_seconds * a.function_memory_gb, price.lambda_gb_second),
            ("schedule invocations", executions, price.scheduler_invocation),
            ("write units", writes, price.dynamodb_write_unit),
            ("read units", reads, price.dynamodb_read_unit),
            ("GB-months kept", self.gigabytes_kept(), price.dynamodb_gb_month),
        ];
        self.bill("lambda", "Lambda, Step Functions and DynamoDB", &lines)
    }

    fn container_and_serverless_database(&self) -> Bill {
        let units = self.load.per_month(|n| self.capacity(n));
        let mut lines = self.container();
        lines.push(("ACU-hours", units, self.prices.aurora_acu_hour));
        lines.extend(self.database());
        let what = "a container and Aurora Serverless v2; a worker that runs keeps it awake, so it never pauses";
        self.bill("container-serverless", what, &lines)
    }

    fn container_and_instance(&self) -> Bill {
        let mut lines = self.container();
        lines.push(("instance hours", HOURS_A_MONTH, self.prices.aurora_instance_hour));
        lines.extend(self.database());
        self.bill("container-provisioned", "a container and one provisioned Aurora instance", &lines)
    }

    /// `caudal confirm once` by the clock, over a database that sleeps in between.
    fn schedule(&self) -> Bill {
        let (load, price, a) = (self.load, self.prices, self.assumed);
        let per_hour = 60.0 / a.minutes_between_runs;
        let run_seconds = |n: f64| {
            let works = load.calls(n) / per_hour * load.call_seconds / a.calls_at_once;
            f64::max(a.task_seconds_min, a.task_start_seconds + works)
        };
        let task_hours = load.per_month(|n| per_hour * run_seconds(n) / SECONDS_AN_HOUR);
        let units = load.per_month(|n| {
            // Arrivals are written as they come, each of which wakes it; and each run does.
            let asleep_of_arrivals = (-n * a.pause_after_seconds / SECONDS_AN_HOUR).exp();
            let awake_of_runs = f64::min(1.0, per_hour * (run_seconds(n) + a.pause_after_seconds) / SECONDS_AN_HOUR);
            (1.0 - asleep_of_arrivals * (1.0 - awake_of_runs)) * self.capacity(n)
        });
        let mut lines = vec![
            ("container vCPU-hours", task_hours * a.container_vcpu, price.fargate_vcpu_hour),
            ("container GB-hours", task_hours * a.container_gb, price.fargate_gb_hour),
            ("schedule invocations", per_hour * HOURS_A_MONTH, price.scheduler_invocation),
            ("ACU-hours", units, price.aurora_acu_hour),
        ];
        lines.extend(self.database());
        self.bill("schedule", "`caudal confirm once` by a schedule and Aurora Serverless v2, paused in between", &lines)
    }

    fn machine(&self) -> Bill {
        let price = self.prices;
        let lines = [
            ("machine hours", HOURS_A_MONTH, price.vm_hour),
            ("disk GB-months", self.assumed.vm_disk_gb, price.vm_disk_gb_month),
            ("public address hours", HOURS_A_MONTH, price.vm_address_hour),
        ];
        self.bill("vm", "one small machine with SQLite; no second one stands by", &lines)
    }

    /// As many as the busiest hour needs, all the time.
    fn container(&self) -> Vec<(&'static str, f64, f64)> {
        let a = self.assumed;
        let busiest = self.load.calls(self.load.busiest_hour()) / SECONDS_AN_HOUR;
        let hours = (busiest / a.calls_per_second_per_container).ceil().max(1.0) * HOURS_A_MONTH;
        vec![
            ("container vCPU-hours", hours * a.container_vcpu, self.prices.fargate_vcpu_hour),
            ("container GB-hours", hours * a.container_gb, self.prices.fargate_gb_hour),
        ]
    }

    /// Capacity units in an hour with `n` arrivals.
    fn capacity(&self, n: f64) -> f64 {
        let needed = self.load.calls(n) / SECONDS_AN_HOUR / self.assumed.calls_per_second_per_capacity_unit;
        f64::max(self.assumed.capacity_units_min, (needed / CAPACITY_STEP).ceil() * CAPACITY_STEP)
    }

    fn database(&self) -> [(&'static str, f64, f64); 2] {
        let ios = self.load.transactions_per_month() * self.assumed.ios_per_transaction;
        [
            ("storage requests", ios, self.prices.aurora_io),
            ("GB-months kept", self.gigabytes_kept(), self.prices.aurora_gb_month),
        ]
    }

    fn gigabytes_kept(&self) -> f64 {
        let kilobytes = self.load.transactions_per_month() * self.assumed.kilobytes_per_transaction;
        kilobytes / 1e6 * self.assumed.months_kept
    }

    fn bill(&self, deployment: &'static str, what: &'static str, lines: &[(&'static str, f64, f64)]) -> Bill {
        let lines: Vec<Line> = lines
            .iter()
            .map(|(of, amount, price)| Line { of, amount: *amount, usd_per_month: amount * price })
            .collect();
        let usd_per_month = lines.iter().map(|line| line.usd_per_month).sum();
        let usd_per_million = usd_per_month / self.load.transactions_per_month() * 1e6;
        Bill { deployment, what, usd_per_month, usd_per_million, lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Round ones near those of us-east-1, so that a bill can be checked by hand.
    const PRICES: Prices = Prices {
        lambda_request: 0.000_000_2,
        lambda_gb_second: 0.000_013_333_4,
        states_transition: 0.000_025,
        scheduler_invocation: 0.000_001,
        dynamodb_write_unit: 0.000_000_625,
        dynamodb_read_unit: 0.000_000_125,
        dynamodb_gb_month: 0.25,
        fargate_vcpu_hour: 0.032_38,
        fargate_gb_hour: 0.003_56,
        aurora_acu_hour: 0.12,
        aurora_instance_hour: 0.073,
        aurora_io: 0.000_000_2,
        aurora_gb_month: 0.1,
        vm_hour: 0.0168,
        vm_disk_gb_month: 0.08,
        vm_address_hour: 0.005,
    };

    fn load(hours: &[u64]) -> Load {
        Load { hours: hours.to_vec(), calls_per_transaction: 1.0, call_seconds: 0.1 }
    }

    fn of<'b>(bills: &'b [Bill], deployment: &str) -> &'b Bill {
        bills.iter().find(|bill| bill.deployment == deployment).expect("a bill")
    }

    #[track_caller]
    fn about(got: f64, expected: f64) {
        assert!((got - expected).abs() < expected.abs() * 1e-3 + 1e-9, "{got} instead of {expected}");
    }

    /// One a second, 2,628,000 a month, written out by hand.
    #[test]
    fn a_steady_second_by_second_load_costs_what_it_does_on_paper() {
        let bills = bills(&load(&[3_600; 24]), &PRICES, &Assumptions::default()).expect("bills");
        let lambda = of(&bills, "lambda");
        // 12 executions an hour with 300 transactions each: a function each, which has three batches of 100.
        let expected = [
            ("state transitions", 730.0 * (12.0 * 6.0 + 12.0), 1.533),
            ("function requests", 730.0 * (24.0 + 12.0), 0.005_256),
            ("function GB-seconds", 730.0 * (36.0 * 0.2 + 18.0 + 3.6) / 4.0, 0.070_08),
            ("schedule invocations", 730.0 * 12.0, 0.008_76),
            ("write units", 730.0 * (3_600.0 * 4.0 + 36.0 * 6.0), 6.668_55),
            ("read units", 730.0 * (3_600.0 + 12.0 * 24.0), 0.354_78),
            ("GB-months kept", 2.628, 0.657),
        ];
        for (line, (of, amount, usd)) in lambda.lines.iter().zip(expected) {
            assert_eq!(line.of, of);
            about(line.amount, amount);
            about(line.usd_per_month, usd);
        }
        about(lambda.usd_per_month, 9.297_4);
        about(lambda.usd_per_million, 3.537_8);
        // 7.21 for the container, 43.80 for half a unit, 1.05 for requests, 0.26 for storage.
        about(of(&bills, "container-serverless").usd_per_month, 7.208_75 + 43.8 + 1.051_2 + 0.262_8);
        about(of(&bills, "container-provisioned").usd_per_month, 7.208_75 + 53.29 + 1.051_2 + 0.262_8);
        about(of(&bills, "vm").usd_per_month, 12.264 + 1.6 + 3.65);
        // It never sleeps with an arrival a second: the run is cheaper than the container, the database is not.
        about(of(&bills, "schedule").usd_per_month, 730.0 / 60.0 * 0.009_875 + 0.000_73 + 43.8 + 1.051_2 + 0.262_8);
    }

    /// 1,000 in one hour of the night: the database sleeps for the rest of the day, but for a run an hour.
    #[test]
    fn a_nightly_batch_lets_the_database_sleep() {
        let mut day = [0; 24];
        day[2] = 1_000;
        let bills = bills(&load(&day), &PRICES, &Assumptions::default()).expect("bills");
        let schedule = of(&bills, "schedule");
        let units = schedule.lines.iter().find(|line| line.of == "ACU-hours").expect("a line");
        // 23 hours with 360 of 3,600 s awake, one whole hour, half a unit each.
        about(units.amount, 730.0 / 24.0 * 0.5 * (23.0 * 0.1 + 1.0));
        assert!(schedule.usd_per_month < of(&bills, "container-serverless").usd_per_month / 4.0);
    }

    #[test]
    fn more_load_and_more_failures_never_cost_less() {
        let per_month = |load: &Load| {
            let bills = bills(load, &PRICES, &Assumptions::default()).expect("bills");
            bills.iter().map(|bill| bill.usd_per_month).collect::<Vec<_>>()
        };
        let mut before = per_month(&load(&[1]));
        for n in [10, 1_000, 100_000, 10_000_000] {
            for calls in [1.0, 1.5, 12.0] {
                let now = per_month(&Load { calls_per_transaction: calls, ..load(&[n]) });
                if calls == 1.0 {
                    assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{n}: {before:?} {now:?}");
                    before = now;
                } else {
                    assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{n} × {calls}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_divided_is_refused() {
        let assumed = Assumptions::default();
        assert_eq!(bills(&load(&[]), &PRICES, &assumed), Err(Unusable::Nothing));
        assert_eq!(bills(&load(&[0, 0]), &PRICES, &assumed), Err(Unusable::Nothing));
        let never = Assumptions { minutes_between_runs: 0.0, ..assumed };
        assert_eq!(bills(&load(&[1]), &PRICES, &never), Err(Unusable::NotPositive("minutes_between_runs")));
        let odd = Load { calls_per_transaction: f64::NAN, ..load(&[1]) };
        assert_eq!(bills(&odd, &PRICES, &assumed), Err(Unusable::NotPositive("calls per transaction")));
    }
}
