//! The confirmation engine as real processes against a hostile endpoint: the failure matrix, on PostgreSQL, SQLite and (with fewer
//! transactions, because it is an emulator) DynamoDB.
//!
//! After each case the same oracle: every transaction has one outcome or is open in one place; what the store says of a
//! transaction is what the endpoint did; nothing was done twice.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod cost;
mod crashes;
mod endpoint;
mod fleet;
mod functions;
#[cfg(feature = "dynamodb")]
mod moving;
mod operating;
mod planted;
mod soak;
#[cfg(feature = "dynamodb")]
mod table;

/// Each case on each store, as a test of its own.
macro_rules! on_both_stores {
    ($($case:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::fleet::Store::postgres().await).await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::fleet::Store::sqlite()).await;
            })+
        }
    };
}
/// On DynamoDB as well.
macro_rules! on_all_stores {
    ($($case:ident),+ $(,)?) => {
        $crate::on_both_stores!($($case),+);

        #[cfg(feature = "dynamodb")]
        mod on_dynamodb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($crate::fleet::Store::dynamodb().await).await;
            })+
        }
    };
}
pub(crate) use {on_all_stores, on_both_stores};
