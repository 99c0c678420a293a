//! What changed the count of a task group, and remarks about it. The newest of each group are kept.

use serde::{Deserialize, Serialize};

/// Events kept of each group.
/// Source: upstream v1.10.0 nomad/structs/structs.go `JobTrackedScalingEvents`.
pub const EVENTS_MAX: usize = 20;

/// `ScalingEvent`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingEvent {
    /// When, ns since the epoch.
    pub at_ns: i64,
    /// The new count; `None` = only a remark.
    pub count: Option<i64>,
    /// The count before.
    pub previous_n: i64,
    /// Why.
    pub message: String,
    /// Something went wrong.
    pub is_error: bool,
    /// A JSON object, as text; empty = none.
    pub meta: String,
    /// The evaluation that followed; empty = none.
    pub eval: String,
    /// Index of the event.
    pub create_index: u64,
}

/// All events of a job, by group.
pub type ScalingEvents = Vec<(String, Vec<ScalingEvent>)>;

/// Adds an event; the oldest of its group goes when there are too many.
pub fn push(events: &mut ScalingEvents, group: &str, event: ScalingEvent) {
    let i = events.iter().position(|(name, _)| name == group).unwrap_or_else(|| {
        events.push((group.to_owned(), Vec::new()));
        events.len() - 1
    });
    let of_group = &mut events[i].1;
    of_group.push(event);
    let excess_n = of_group.len().saturating_sub(EVENTS_MAX);
    of_group.drain(..excess_n);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let mut events = ScalingEvents::new();
        for n in 0..30 {
            push(&mut events, "g", ScalingEvent { create_index: n, ..ScalingEvent::default() });
            push(&mut events, "h", ScalingEvent::default());
        }
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].1.iter().map(|event| event.create_index).collect::<Vec<_>>(), (10..30).collect::<Vec<_>>());
    }
}
