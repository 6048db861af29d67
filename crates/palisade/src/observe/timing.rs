//! A histogram of times that a request pays a few atomic additions for: kept apart by thread, joined when it is read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::shard;

/// Upper bounds of the buckets, in microseconds.
const BOUNDS: [u64; 12] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000];
const SHARDS: usize = 8;

/// Times, in microseconds; seconds when they are read. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timing(Arc<[Shard; SHARDS]>);

// A cache line a counter group, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Timing {
    /// Counts a time.
    pub(crate) fn observe(&self, micros: u64) {
        let shard = &self.0[shard::of(SHARDS)];
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        shard.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        shard.sum.fetch_add(micros, Ordering::Relaxed);
    }
}

impl TypedMetric for Timing {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Timing {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let counts =
            |bucket: usize| self.0.iter().map(|shard| shard.buckets[bucket].load(Ordering::Relaxed)).sum::<u64>();
        let buckets: Vec<(f64, u64)> = bounds.enumerate().map(|(bucket, bound)| (bound, counts(bucket))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum: u64 = self.0.iter().map(|shard| shard.sum.load(Ordering::Relaxed)).sum();
        encoder.encode_histogram::<NoLabelSet>(sum as f64 / 1e6, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
