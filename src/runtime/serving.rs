//! Says how the HTTP listener is doing: in the journal, and by alert if an address cannot be
//! listened on. It never keeps the daemon from anything.

use tokio::sync::mpsc;

use super::tell::Teller;
use crate::config::settings::Severity;
use crate::telemetry::Notable;
use crate::web::Report;

/// Tells of everything that comes.
pub fn spawn(mut reports: mpsc::Receiver<Report>, teller: Teller) {
    tokio::spawn(async move {
        while let Some(report) = reports.recv().await {
            match report {
                Report::Listening { address } => {
                    let text = format!("status page and metrics are served at {address}");
                    teller.log(Notable::HttpListening, None, &text);
                }
                Report::NotListening { address, fault } => failed(
                    &teller,
                    &format!(
                        "status page and metrics cannot be served at {address}: {fault}; it is \
                         tried again, and failover works without them"
                    ),
                ),
                Report::OldCertificate { fault } => failed(
                    &teller,
                    &format!("the new certificate cannot be used, the old one stays: {fault}"),
                ),
            }
        }
    });
}

/// Says that there is something that people who look at metrics will not see.
pub fn failed(teller: &Teller, text: &str) {
    teller.alert(Notable::HttpFailed, Severity::Warning, None, text);
}
