//! Messages → records, in the newest format or the one before.

use super::FORMAT;
use crate::classes::{BotClass, Browser, Device, System};
use crate::proto::{self, log_record::Body};
use crate::rejection::RejectionReason;
use prost::Message;

/// The format that an endpoint writes. Aggregators of the previous release read at most format 3, so an endpoint writes it until all
/// aggregators are upgraded.
///
/// ```
/// use headcount_schemas::record::RecordFormat;
/// assert_eq!(RecordFormat::from_number(3), Some(RecordFormat::V3));
/// assert_eq!(RecordFormat::default().number(), 4);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordFormat {
    /// Views without the fields and classes of format 4; refused beacons; no other tallies.
    V3,
    /// Everything.
    #[default]
    V4,
}

impl RecordFormat {
    /// The format with this number, if an endpoint can write it.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            3 => Some(RecordFormat::V3),
            4 => Some(RecordFormat::V4),
            _ => None,
        }
    }

    /// Its number in a record.
    pub const fn number(self) -> u32 {
        match self {
            RecordFormat::V3 => 3,
            RecordFormat::V4 => FORMAT,
        }
    }
}

/// Encodes a page view as one record. Format 3 omits the fields of format 4, and its classes become the nearest ones of format 3. Format 3
/// cannot represent a person's view without coordinates ([`proto::Source::Log`]): decoders refuse it.
pub fn encode_page_view(view: proto::PageView, format: RecordFormat) -> Vec<u8> {
    let view = match format {
        RecordFormat::V3 => in_format_3(view),
        RecordFormat::V4 => view,
    };
    encode(Body::PageView(view), format)
}

/// Encodes a tally of refused beacons as one record; none if the format does not have its reason.
pub fn encode_rejections(tally: proto::RejectionTally, format: RecordFormat) -> Option<Vec<u8>> {
    let known =
        RejectionReason::from_number(tally.reason).is_none_or(|reason| reason.first_format() <= format.number());
    known.then(|| encode(Body::Rejections(tally), format))
}

/// Encodes a tally of views counted without a fact as one record; none in format 3, which does not have it.
pub fn encode_dropped_facts(tally: proto::DroppedFacts, format: RecordFormat) -> Option<Vec<u8>> {
    (format == RecordFormat::V4).then(|| encode(Body::DroppedFacts(tally), format))
}

/// Encodes a tally of pages reported missing as one record; none in format 3, which does not have it.
pub fn encode_reported_missing(tally: proto::ReportedMissing, format: RecordFormat) -> Option<Vec<u8>> {
    (format == RecordFormat::V4).then(|| encode(Body::ReportedMissing(tally), format))
}

fn encode(body: Body, format: RecordFormat) -> Vec<u8> {
    proto::LogRecord { format: format.number(), body: Some(body) }.encode_to_vec()
}

fn in_format_3(view: proto::PageView) -> proto::PageView {
    let device = match view.device() {
        Device::Tv | Device::Console => Device::OtherDevice,
        known => known,
    };
    let browser = match view.browser() {
        Browser::Duckduckgo | Browser::Brave => Browser::OtherBrowser,
        known => known,
    };
    let system = match view.system() {
        System::Bsd | System::Harmonyos | System::Kaios => System::OtherSystem,
        known => known,
    };
    let bot_class: BotClass = view.bot_class().counted_as();
    proto::PageView {
        device: device as i32,
        browser: browser as i32,
        system: system as i32,
        bot_class: bot_class as i32,
        source: 0,
        rules: 0,
        title: String::new(),
        marks: 0,
        version_meant: String::new(),
        ..view
    }
}
