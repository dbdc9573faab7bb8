//! Whose clock says when a record was appended.

use rdkafka::message::Timestamp;

/// What the times of a topic's records are, as its `message.timestamp.type` decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordTimes {
    /// `LogAppendTime`: the brokers', which agree well enough.
    Append,
    /// `CreateTime`: those that the sender gave. Right where one sender fills a log with what happened before, as a load test does;
    /// of several senders the clocks differ, and each difference at a window's end begins windows.
    Create,
}

impl RecordTimes {
    /// Milliseconds since the epoch; none where the record has a time of another kind, or none.
    pub fn millis(self, timestamp: Timestamp) -> Option<i64> {
        match (self, timestamp) {
            (RecordTimes::Append, Timestamp::LogAppendTime(millis))
            | (RecordTimes::Create, Timestamp::CreateTime(millis)) => Some(millis),
            _ => None,
        }
    }

    /// The topic's `message.timestamp.type`.
    pub fn topic_setting(self) -> &'static str {
        match self {
            RecordTimes::Append => "LogAppendTime",
            RecordTimes::Create => "CreateTime",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_other_kind_is_none() {
        let [append, create] = [Timestamp::LogAppendTime(7), Timestamp::CreateTime(7)];
        assert_eq!([append, create].map(|time| RecordTimes::Append.millis(time)), [Some(7), None]);
        assert_eq!([append, create].map(|time| RecordTimes::Create.millis(time)), [None, Some(7)]);
        assert_eq!(RecordTimes::Append.millis(Timestamp::NotAvailable), None);
    }
}
