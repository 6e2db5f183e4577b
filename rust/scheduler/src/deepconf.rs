//! What follows from a trace's end or answer: the token budget, the threshold, the consensus, the
//! end of the request. Everything is decided in trace order, so timing never changes a result.

use crate::plan::{Event, EventKind, FinishReason};
use crate::scheduler::Scheduler;
use crate::sequence::SequenceKey;
use crate::vote::percentile;

impl Scheduler {
    /// Draw the consequences; free the prompt owner when nobody needs it any more.
    pub(crate) fn settle(&mut self, arrival: u64, events: &mut Vec<Event>) {
        self.cut_at_total_tokens(arrival, events);
        self.fix_threshold(arrival, events);
        self.seek_consensus(arrival, events);
        let request = &self.requests[&arrival];
        if request.is_owner_idle() {
            self.free_owner(arrival);
        }
        let request = &self.requests[&arrival];
        if request.num_unfinished == 0 && self.unfinished.remove(&arrival) {
            events.push(Event {
                request_id: request.id,
                trace_index: None,
                kind: EventKind::RequestFinished,
                reason: None,
                value: None,
            });
        }
    }

    /// `total_tokens`, in trace order: a trace counts when the traces before it spend less than
    /// the total; the others end with "length" as soon as that is certain, and never vote.
    fn cut_at_total_tokens(&mut self, arrival: u64, events: &mut Vec<Event>) {
        let request = &self.requests[&arrival];
        let policy = request.policy.as_ref();
        let Some(total) = policy.and_then(|policy| policy.total_tokens) else {
            return;
        };
        let mut spent = 0;
        let within = request.traces.iter().position(|trace| {
            spent += trace.output_token_ids.len() as u64;
            spent >= total
        });
        let Some(last) = within else { return };
        self.end_after(arrival, last as u32, FinishReason::Length, None, events);
    }

    /// End all traces after `last`; they never vote.
    fn end_after(
        &mut self,
        arrival: u64,
        last: u32,
        reason: FinishReason,
        value: Option<f64>,
        events: &mut Vec<Event>,
    ) {
        let request = self.requests.get_mut(&arrival).expect("a live arrival");
        request.last_voter = Some(request.last_voter.map_or(last, |known| known.min(last)));
        for trace in last + 1..request.traces.len() as u32 {
            self.finish(SequenceKey { arrival, trace }, reason, value, events);
        }
    }

    /// Online: when all warm-up traces have ended, the threshold is fixed from those that ended by
    /// themselves and may vote, and the other traces may be launched.
    fn fix_threshold(&mut self, arrival: u64, events: &mut Vec<Event>) {
        let request = self.requests.get_mut(&arrival).expect("a live arrival");
        let Some(policy) = request.policy.as_ref().filter(|_| !request.is_warm) else {
            return;
        };
        let warmup = &request.traces[..policy.warmup as usize];
        if warmup.iter().any(|trace| trace.reason.is_none()) {
            return;
        }
        let last_voter = request.last_voter.map_or(usize::MAX, |last| last as usize);
        let complete = warmup.iter().take(last_voter.saturating_add(1));
        let complete = complete.filter(|trace| trace.is_complete());
        let lowest: Vec<f64> = complete
            .filter_map(|trace| trace.confidences.lowest_group())
            .collect();
        request.threshold = percentile(&lowest, policy.keep);
        request.is_warm = true;
        events.push(Event {
            request_id: request.id,
            trace_index: None,
            kind: EventKind::Threshold,
            reason: None,
            value: request.threshold,
        });
        // A window of one token is full on the first token, drawn before the threshold was known.
        let waiting: Vec<u32> = request.waiting.iter().copied().collect();
        for trace in waiting {
            if let Some(group) = self.requests[&arrival].weak_group(trace) {
                let key = SequenceKey { arrival, trace };
                self.finish(key, FinishReason::Confidence, Some(group), events);
            }
        }
    }

    fn seek_consensus(&mut self, arrival: u64, events: &mut Vec<Event>) {
        let request = &self.requests[&arrival];
        let Some(policy) = request.policy.as_ref() else {
            return;
        };
        if policy.consensus.is_none() || !request.is_warm || request.consensus.is_some() {
            return;
        }
        let ballots = request.ballots();
        let found = policy.find_consensus(request.threshold, request.last_voter, &ballots);
        let Some((last, share)) = found else { return };
        let request = self.requests.get_mut(&arrival).expect("a live arrival");
        request.consensus = found;
        self.end_after(arrival, last, FinishReason::Consensus, Some(share), events);
    }
}
