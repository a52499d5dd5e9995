//! Waiting for a condition, never for a while.

use std::time::{Duration, Instant};

/// How long a condition may take that holds within a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at the condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Blocks until `condition` holds.
#[expect(clippy::disallowed_methods, reason = "tests are not suspended")]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// The same for a condition that is found out by waiting for something else.
#[expect(clippy::disallowed_methods, reason = "tests are not suspended")]
pub async fn until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
