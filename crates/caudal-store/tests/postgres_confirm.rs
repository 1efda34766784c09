//! The conformance suite of confirmation against PostgreSQL, directly and through PgBouncer in transaction mode, and what is
//! PostgreSQL's alone: adopted tables, retention, killed backends, answers that get lost.

#[path = "postgres_confirm/harness.rs"]
mod harness;

#[path = "postgres_confirm/adopting.rs"]
mod adopting;
#[path = "postgres_confirm/faults.rs"]
mod faults;
#[path = "postgres_confirm/late.rs"]
mod late;
#[path = "postgres_confirm/lossy.rs"]
mod lossy;
#[path = "postgres_confirm/storing.rs"]
mod storing;

use harness::{Sql, open};

mod direct {
    use super::{Sql, open};

    async fn harness() -> Sql {
        open(false).await
    }

    caudal_testkit::confirm_conformance!(harness);
}

mod pooled {
    use super::{Sql, open};

    async fn harness() -> Sql {
        open(true).await
    }

    caudal_testkit::confirm_conformance!(harness);
}
