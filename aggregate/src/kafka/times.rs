//! Timestamps of records, and the clock that sets them.

use rdkafka::message::Timestamp;
use schemas::Hour;

/// The meaning of a topic's timestamps, which its `message.timestamp.type` determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordTimes {
    /// `LogAppendTime`: set by the brokers, whose clocks agree well enough.
    Append,
    /// `CreateTime`: set by the sender. Suitable if a single sender fills a log with past events, as a load test does. The clocks of
    /// several senders differ, and each difference at a window's end starts new windows.
    Create,
}

impl RecordTimes {
    /// The hour; none if the record has no timestamp of this kind, or one outside the supported hours.
    pub fn hour(self, timestamp: Timestamp) -> Option<Hour> {
        let millis = match (self, timestamp) {
            (RecordTimes::Append, Timestamp::LogAppendTime(millis))
            | (RecordTimes::Create, Timestamp::CreateTime(millis)) => millis,
            _ => return None,
        };
        u32::try_from(millis.div_euclid(3_600_000)).ok().map(Hour)
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
    fn a_time_of_the_other_kind_is_none_and_so_is_an_impossible_one() {
        let [append, create] = [Timestamp::LogAppendTime(7_200_000), Timestamp::CreateTime(7_199_999)];
        assert_eq!([append, create].map(|time| RecordTimes::Append.hour(time)), [Some(Hour(2)), None]);
        assert_eq!([append, create].map(|time| RecordTimes::Create.hour(time)), [None, Some(Hour(1))]);
        for millis in [-1, i64::MIN, i64::MAX] {
            assert_eq!(RecordTimes::Create.hour(Timestamp::CreateTime(millis)), None, "{millis}");
        }
        assert_eq!(RecordTimes::Append.hour(Timestamp::NotAvailable), None);
    }
}
