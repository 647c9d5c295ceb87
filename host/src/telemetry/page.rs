//! A page of metrics being written in the Prometheus text format.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;

/// The page being written, metric by metric.
pub(super) struct Page<'e>(pub(super) DescriptorEncoder<'e>);

type Write<'w> = &'w mut dyn FnMut(&mut Series<'_>) -> fmt::Result;

impl Page<'_> {
    pub(super) fn counters(
        &mut self,
        name: &str,
        help: &str,
        mut write: impl FnMut(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.metric(name, help, MetricType::Counter, &mut write)
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        mut write: impl FnMut(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.metric(name, help, MetricType::Gauge, &mut write)
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        mut write: impl FnMut(&mut Series<'_>) -> fmt::Result,
    ) -> fmt::Result {
        self.metric(name, help, MetricType::Histogram, &mut write)
    }

    /// Writes a histogram that has no labels.
    pub(super) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        histogram.encode(self.0.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }

    fn metric(&mut self, name: &str, help: &str, kind: MetricType, write: Write<'_>) -> fmt::Result {
        write(&mut Series(self.0.encode_descriptor(name, help, None, kind)?))
    }
}

/// One metric being written, label set by label set.
pub(super) struct Series<'e>(MetricEncoder<'e>);

impl Series<'_> {
    pub(super) fn counter(&mut self, labels: &[(&str, &str)], value: impl EncodeCounterValue) -> fmt::Result {
        if labels.is_empty() {
            return self.0.encode_counter::<NoLabelSet, _, u64>(&value, None);
        }
        self.0.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    pub(super) fn gauge(&mut self, labels: &[(&str, &str)], value: impl EncodeGaugeValue) -> fmt::Result {
        if labels.is_empty() {
            return self.0.encode_gauge(&value);
        }
        self.0.encode_family(&labels)?.encode_gauge(&value)
    }

    pub(super) fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> fmt::Result {
        histogram.encode(self.0.encode_family(&labels)?)
    }
}
