//! Server-sent events: the status whenever something changes, as JSON or as the inside of the page.
//!
//! What only counts seconds is no change; whoever shows them can count. So a quiet daemon sends an
//! event for each heartbeat that it sees, and a sign of life in between.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper::header;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::View;
use super::page;
use super::site::{Body, Site, set};
use crate::control::protocol::Status;
use crate::time::BootTime;

/// Least time between two events, so that a takeover with its many steps does not make a storm.
const LEAST_PAUSE: Duration = Duration::from_millis(250);

/// A sign of life when nothing changes, so that both ends notice when the other is gone.
const LIFE_EVERY: Duration = Duration::from_secs(15);

/// How old the history of a page may be while something happens to a group, and for a while after:
/// it is written a little later than it happens.
const NEWS_AGE_MAX: Duration = Duration::from_secs(1);

/// How often the history is looked at meanwhile, if nothing else happens.
const NEWS_EVERY: Duration = Duration::from_secs(2);

/// That while.
const NEWS_FOR: Duration = Duration::from_secs(10);

/// How old the history of a page may be otherwise.
const OLD_AGE_MAX: Duration = Duration::from_secs(60);

/// What two views of the same heartbeat may differ by, as each is rounded.
const BEAT_ROUNDING_MS: u64 = 20;

struct Follower {
    site: Arc<Site>,
    views: watch::Receiver<Option<Arc<View>>>,
    as_page: bool,
    /// The only group that the page shows, if it is only one.
    group: Option<String>,
    /// What was sent last, and how it was then.
    last: Option<(BootTime, Status)>,
    /// Until when the history may still have news.
    news_until: BootTime,
}

/// Follows the daemon, for as long as the client listens.
pub(super) fn stream(site: Arc<Site>, wanted: Option<&str>, group: Option<&str>) -> Response<Body> {
    let group = group.map(str::to_owned);
    let mut views = site.views();
    // The first event comes at once.
    views.mark_changed();
    let follower = Follower {
        site,
        views,
        as_page: wanted == Some("html"),
        group,
        last: None,
        news_until: BootTime::ZERO,
    };
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(event))), follower))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    set(&mut response, header::CONTENT_TYPE, "text/event-stream");
    response
}

impl Follower {
    async fn next(&mut self) -> Option<String> {
        if self.last.is_some() {
            sleep(LEAST_PAUSE).await;
        }
        let hopeful = self.as_page && BootTime::now() < self.news_until;
        let patience = if hopeful { NEWS_EVERY } else { LIFE_EVERY };
        let wait = async {
            loop {
                self.views.changed().await.ok()?;
                let view = self.views.borrow_and_update().clone();
                let now = BootTime::now();
                let status = view.map(|view| view.now(now));
                if let Some(status) = status.filter(|status| self.is_news(now, status)) {
                    return Some((now, status));
                }
            }
        };
        let (now, status) = match timeout(patience, wait).await {
            Ok(news) => news?,
            Err(_) if hopeful => (BootTime::now(), self.site.status()?),
            Err(_) => return Some(event("life", "")),
        };
        let event = if self.as_page { self.page(now, &status).await } else { json(&status) };
        self.last = Some((now, status));
        Some(event)
    }

    /// Whether there is more to see than that time went by.
    fn is_news(&self, now: BootTime, status: &Status) -> bool {
        let Some((at, last)) = &self.last else { return true };
        beat(&last.clone().aged(now.since(*at)), status)
            || timeless(last.clone()) != timeless(status.clone())
    }

    async fn page(&mut self, now: BootTime, status: &Status) -> String {
        let happened = self.last.as_ref().is_none_or(|(_, last)| {
            let story = |status: &Status| {
                let groups = status.groups.iter();
                groups
                    .map(|one| (one.state.clone(), one.epoch, one.hold.is_some(), one.latched))
                    .collect::<Vec<_>>()
            };
            story(last) != story(status)
        });
        if happened {
            self.news_until = now + NEWS_FOR;
        }
        let max_age = if now < self.news_until { NEWS_AGE_MAX } else { OLD_AGE_MAX };
        let seen = self.site.history.recent(max_age).await;
        let (settings, health) = (self.site.settings(), self.site.checks());
        let only = self.group.as_deref();
        event("page", &page::inside(status, settings, &seen, &health, only))
    }
}

fn json(status: &Status) -> String {
    event("status", &serde_json::to_string(status).unwrap_or_default())
}

fn event(name: &str, data: &str) -> String {
    let mut text = format!("event: {name}\n");
    // An event without data is none.
    for line in if data.is_empty() { "-" } else { data }.lines() {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}

/// Whether a heartbeat came that was not expected by then.
fn beat(expected: &Status, status: &Status) -> bool {
    expected.groups.iter().zip(&status.groups).any(|(expected, group)| {
        expected.bots.iter().zip(&group.bots).any(|(expected, bot)| {
            let expected = expected.unchanged_ms.unwrap_or(0);
            bot.unchanged_ms.is_some_and(|unchanged| unchanged + BEAT_ROUNDING_MS < expected)
        })
    })
}

/// A status without everything that counts time.
fn timeless(mut status: Status) -> Status {
    status.uptime_s = 0;
    for group in &mut status.groups {
        group.read_ago_ms = None;
        group.summary.clear();
        group.cooldown_left_ms = group.cooldown_left_ms.map(|_| 0);
        group.blocked_because = group.blocked_because.take().map(|_| String::new());
        group.unknown_because = group.unknown_because.take().map(|_| String::new());
        if let Some(hold) = &mut group.hold {
            hold.left_ms = hold.left_ms.map(|_| 0);
        }
        for bot in &mut group.bots {
            bot.age_ms = None;
            bot.unchanged_ms = bot.unchanged_ms.map(|_| 0);
            bot.stale_in_ms = bot.stale_in_ms.map(|left| left.min(1));
        }
    }
    status
}
