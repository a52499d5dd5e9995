//! A figure of a Prometheus server, or of an exporter that one would scrape.

use serde::Deserialize;
use serde_json::Value;

use super::http::{Clients, parse};
use crate::config::monitoring::{PrometheusAsk, PrometheusProbe, Reduce};
use crate::monitor::measured::Measured;

/// Answer of the server, as its API has it.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

#[derive(Deserialize)]
struct Sample {
    value: (f64, String),
}

/// Asks.
///
/// # Errors
/// If there is no number, in words.
pub async fn ask(clients: &Clients, probe: &PrometheusProbe) -> Result<Measured, String> {
    let mut url = parse(&probe.url)?;
    if let PrometheusAsk::Query(query) = &probe.ask {
        if !url.path().ends_with("/api/v1/query") {
            let whole = format!("{}/api/v1/query", url.path().trim_end_matches('/'));
            url.set_path(&whole);
        }
        url.query_pairs_mut().append_pair("query", query);
    }
    let answer = clients.get(url, probe.token.as_ref(), probe.ca_file.as_ref()).await?;
    let values = match &probe.ask {
        PrometheusAsk::Query(_) => of_server(answer.status, &answer.body)?,
        PrometheusAsk::Metric(_) if answer.status != 200 => {
            return Err(format!("the exporter answered {}", answer.status));
        }
        PrometheusAsk::Metric(metric) => metric.select(&String::from_utf8_lossy(&answer.body)),
    };
    reduce(&values, probe.reduce)
}

fn of_server(status: u16, body: &[u8]) -> Result<Vec<f64>, String> {
    let no_server = || format!("answered {status}, and not as a Prometheus server does");
    // An error has a body too, which says more than its status.
    let answer: Answer = serde_json::from_slice(body).map_err(|_| no_server())?;
    if answer.status != "success" {
        return Err(format!("Prometheus refuses the query: {}", answer.error));
    }
    let data = answer.data.ok_or_else(no_server)?;
    let values: Vec<String> = match data.kind.as_str() {
        "vector" => {
            let samples = Vec::<Sample>::deserialize(data.result).map_err(|_| no_server())?;
            samples.into_iter().map(|sample| sample.value.1).collect()
        }
        "scalar" => {
            let (_, value) = <(f64, String)>::deserialize(data.result).map_err(|_| no_server())?;
            vec![value]
        }
        _ => return Err("the query returns a range or a text, not a number".to_owned()),
    };
    let numbers = values.iter().filter_map(|value| value.parse::<f64>().ok());
    Ok(numbers.filter(|value| value.is_finite()).collect())
}

#[expect(clippy::cast_precision_loss, reason = "there are not so many samples")]
fn reduce(values: &[f64], reduce: Reduce) -> Result<Measured, String> {
    let sum: f64 = values.iter().sum();
    let count = values.len() as f64;
    let value = match reduce {
        Reduce::Count => Some(count),
        Reduce::Max => values.iter().copied().reduce(f64::max),
        Reduce::Min => values.iter().copied().reduce(f64::min),
        Reduce::Sum if values.is_empty() => None,
        Reduce::Sum => Some(sum),
        Reduce::Mean if values.is_empty() => None,
        Reduce::Mean => Some(sum / count),
    };
    let value = value.ok_or_else(|| "there is no sample of that".to_owned())?;
    let text =
        if values.len() > 1 { format!("of {} samples", values.len()) } else { String::new() };
    Ok(Measured::said(value, text))
}
