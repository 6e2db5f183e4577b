//! The five behaviours of a split: what becomes of the matches among the pieces.

use serde::Deserialize;

/// What becomes of a match.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behavior {
    /// It is dropped.
    Removed,
    /// It is a piece of its own.
    Isolated,
    /// It ends the piece before it.
    MergedWithPrevious,
    /// It starts the piece after it.
    MergedWithNext,
    /// Neighbouring matches are one piece.
    Contiguous,
}

/// Turns a run of spans, each a match or not, into pieces.
pub(crate) struct Assembler {
    behavior: Behavior,
    /// The piece that may still grow.
    held: Option<(usize, usize)>,
    previous_is_match: bool,
}

impl Assembler {
    pub(crate) fn new(behavior: Behavior) -> Self {
        Self {
            behavior,
            held: None,
            previous_is_match: false,
        }
    }

    /// Take the next span; returns a piece that is complete now.
    pub(crate) fn push(
        &mut self,
        start: usize,
        end: usize,
        is_match: bool,
    ) -> Option<(usize, usize)> {
        let previous = std::mem::replace(&mut self.previous_is_match, is_match);
        let grows = match self.behavior {
            Behavior::Removed => return (!is_match).then_some((start, end)),
            Behavior::Isolated => return Some((start, end)),
            Behavior::Contiguous => is_match == previous,
            Behavior::MergedWithPrevious => is_match && !previous,
            Behavior::MergedWithNext => previous && !is_match,
        };
        match &mut self.held {
            Some(held) if grows => {
                held.1 = end;
                None
            }
            held => held.replace((start, end)),
        }
    }

    /// The last piece.
    pub(crate) fn finish(&mut self) -> Option<(usize, usize)> {
        self.held.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(behavior: Behavior, text: &str) -> Vec<&str> {
        let mut assembler = Assembler::new(behavior);
        let mut pieces = Vec::new();
        // Spans of the pattern '-' in text.
        let mut spans = Vec::new();
        let mut from = 0;
        for (at, _) in text.match_indices('-') {
            if from < at {
                spans.push((from, at, false));
            }
            spans.push((at, at + 1, true));
            from = at + 1;
        }
        if from < text.len() {
            spans.push((from, text.len(), false));
        }
        for (start, end, is_match) in spans {
            pieces.extend(assembler.push(start, end, is_match));
        }
        pieces.extend(assembler.finish());
        pieces
            .into_iter()
            .map(|(start, end)| &text[start..end])
            .collect()
    }

    #[test]
    fn behaviours_of_the_reference() {
        let text = "The-final--countdown";
        assert_eq!(
            split(Behavior::Removed, text),
            ["The", "final", "countdown"]
        );
        assert_eq!(
            split(Behavior::Isolated, text),
            ["The", "-", "final", "-", "-", "countdown"]
        );
        assert_eq!(
            split(Behavior::MergedWithPrevious, text),
            ["The-", "final-", "-", "countdown"]
        );
        assert_eq!(
            split(Behavior::MergedWithNext, text),
            ["The", "-final", "-", "-countdown"]
        );
        assert_eq!(
            split(Behavior::Contiguous, text),
            ["The", "-", "final", "--", "countdown"]
        );
        assert_eq!(split(Behavior::MergedWithNext, "-a--"), ["-a", "-", "-"]);
        assert_eq!(
            split(Behavior::MergedWithPrevious, "--a-"),
            ["-", "-", "a-"]
        );
    }
}
