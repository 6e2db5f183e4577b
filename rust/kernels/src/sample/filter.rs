//! Which tokens a filter keeps: the k most probable, or the fewest that reach a mass.
//!
//! Weights lie in (0, 1], so their bits ascend with them: one pass sorts them into buckets by
//! their leading bits, and only the bucket in which the limit falls is sorted.

/// Buckets for the leading 16 bits of 0.0 ..= 1.0.
const BUCKETS: usize = 0x3F80 + 1;

/// How much to keep, most probable first.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    /// So many tokens.
    Count(usize),
    /// Until the mass kept reaches this share.
    Share(f64),
}

/// Set the weight of every token that the limit drops to 0. `logits` decides the order, ties by
/// lower id; tokens of weight 0 are gone already.
pub(super) fn keep_most_probable(weights: &mut [f32], logits: &[f32], limit: Limit) {
    let bucket = |weight: f32| ((weight.to_bits() >> 16) as usize).min(BUCKETS - 1);
    let mut counts = vec![0usize; BUCKETS];
    let mut masses = vec![0.0f64; BUCKETS];
    for &weight in weights.iter().filter(|weight| **weight > 0.0) {
        counts[bucket(weight)] += 1;
        masses[bucket(weight)] += f64::from(weight);
    }
    let target = match limit {
        Limit::Count(k) => k as f64,
        Limit::Share(share) => share * masses.iter().rev().sum::<f64>(),
    };
    // Walk down until the limit is reached.
    let mut reached = 0.0;
    let Some(last) = (0..BUCKETS).rev().find(|&b| {
        let more = match limit {
            Limit::Count(_) => counts[b] as f64,
            Limit::Share(_) => masses[b],
        };
        let inside = counts[b] > 0 && reached + more >= target;
        if !inside {
            reached += more;
        }
        inside
    }) else {
        return;
    };
    let mut edge: Vec<usize> = (0..weights.len())
        .filter(|&i| weights[i] > 0.0 && bucket(weights[i]) == last)
        .collect();
    edge.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let mut kept = 0;
    for &i in &edge {
        if reached >= target && kept > 0 {
            break;
        }
        reached += match limit {
            Limit::Count(_) => 1.0,
            Limit::Share(_) => f64::from(weights[i]),
        };
        kept += 1;
    }
    for weight in weights.iter_mut().filter(|weight| bucket(**weight) < last) {
        *weight = 0.0;
    }
    for &i in &edge[kept..] {
        weights[i] = 0.0;
    }
}
