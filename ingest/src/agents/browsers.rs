//! Device, browser family and system family of a person's agent.

use aho_corasick::AhoCorasick;
use schemas::classes::{Browser, Device, System};
use std::sync::LazyLock;

/// The class that a literal indicates.
#[derive(Clone, Copy)]
enum Family {
    Of(Browser),
    On(System),
    With(Device),
}
use Family::{Of, On, With};

/// Literals in lower case. For each of browser, system and device the first in this order wins.
const FAMILIES: &[(&str, Family)] = &[
    // Browsers that name another browser, too.
    ("samsungbrowser", Of(Browser::SamsungInternet)),
    ("edg/", Of(Browser::Edge)),
    ("edga/", Of(Browser::Edge)),
    ("edgios/", Of(Browser::Edge)),
    ("edge/", Of(Browser::Edge)),
    ("opr/", Of(Browser::Opera)),
    ("opt/", Of(Browser::Opera)),
    ("opx/", Of(Browser::Opera)),
    ("opios/", Of(Browser::Opera)),
    ("opera", Of(Browser::Opera)),
    ("ddg/", Of(Browser::Duckduckgo)),
    ("duckduckgo/", Of(Browser::Duckduckgo)),
    ("brave/", Of(Browser::Brave)),
    (" brave", Of(Browser::Brave)),
    ("fban/", Of(Browser::OtherBrowser)),
    ("fbav/", Of(Browser::OtherBrowser)),
    ("fb_iab", Of(Browser::OtherBrowser)),
    ("instagram", Of(Browser::OtherBrowser)),
    ("snapchat", Of(Browser::OtherBrowser)),
    ("pinterest", Of(Browser::OtherBrowser)),
    ("gsa/", Of(Browser::OtherBrowser)),
    ("vivaldi", Of(Browser::OtherBrowser)),
    ("browser/", Of(Browser::OtherBrowser)),
    ("ucweb", Of(Browser::OtherBrowser)),
    ("whale/", Of(Browser::OtherBrowser)),
    ("silk/", Of(Browser::OtherBrowser)),
    ("puffin/", Of(Browser::OtherBrowser)),
    ("electron/", Of(Browser::OtherBrowser)),
    ("coc_coc", Of(Browser::OtherBrowser)),
    ("maxthon", Of(Browser::OtherBrowser)),
    ("konqueror", Of(Browser::OtherBrowser)),
    ("seamonkey", Of(Browser::OtherBrowser)),
    ("palemoon", Of(Browser::OtherBrowser)),
    ("trident/", Of(Browser::OtherBrowser)),
    ("msie ", Of(Browser::OtherBrowser)),
    // The families themselves, and the views that apps have of them.
    ("crios/", Of(Browser::Chrome)),
    ("fxios/", Of(Browser::Firefox)),
    ("firefox/", Of(Browser::Firefox)),
    ("chrome/", Of(Browser::Chrome)),
    ("chromium/", Of(Browser::Chrome)),
    ("safari/", Of(Browser::Safari)),
    ("applewebkit", Of(Browser::Safari)),
    // Systems: the specific ones before those whose names their agents also contain.
    ("kaios", On(System::Kaios)),
    ("harmony", On(System::Harmonyos)),
    ("windows", On(System::Windows)),
    ("xbox", On(System::Windows)),
    ("tizen", On(System::OtherSystem)),
    ("web0s", On(System::OtherSystem)),
    ("webos", On(System::OtherSystem)),
    ("playstation", On(System::OtherSystem)),
    ("nintendo", On(System::OtherSystem)),
    ("sunos", On(System::OtherSystem)),
    ("android", On(System::Android)),
    ("iphone", On(System::Ios)),
    ("ipad", On(System::Ios)),
    ("ipod", On(System::Ios)),
    ("mac os x", On(System::Macos)),
    ("macintosh", On(System::Macos)),
    (" cros ", On(System::ChromeOs)),
    ("bsd", On(System::Bsd)),
    ("dragonfly", On(System::Bsd)),
    ("linux", On(System::Linux)),
    ("x11", On(System::Linux)),
    // Devices that their agents name. The others follow from the system.
    ("playstation", With(Device::Console)),
    ("xbox", With(Device::Console)),
    ("nintendo", With(Device::Console)),
    ("smart-tv", With(Device::Tv)),
    ("smarttv", With(Device::Tv)),
    ("googletv", With(Device::Tv)),
    ("android tv", With(Device::Tv)),
    ("appletv", With(Device::Tv)),
    ("apple tv", With(Device::Tv)),
    ("hbbtv", With(Device::Tv)),
    ("netcast", With(Device::Tv)),
    ("web0s", With(Device::Tv)),
    ("; aft", With(Device::Tv)),
    ("bravia", With(Device::Tv)),
    ("crkey", With(Device::Tv)),
    (" tv", With(Device::Tv)),
    ("ipad", With(Device::Tablet)),
    ("tablet;", With(Device::Tablet)),
    ("kindle", With(Device::Tablet)),
    ("iphone", With(Device::Mobile)),
    ("ipod", With(Device::Mobile)),
    ("kaios", With(Device::Mobile)),
    ("windows phone", With(Device::Mobile)),
    ("opera mini", With(Device::Mobile)),
    ("mobile", With(Device::Mobile)),
];

static LITERALS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::new(FAMILIES.iter().map(|(literal, _)| literal)).expect("the table is a valid set of patterns")
});

/// Device, browser and system of a person's agent, in lower case.
pub(super) fn families(agent: &str) -> (Device, Browser, System) {
    let [mut browser, mut system, mut device] = [FAMILIES.len(); 3];
    for found in LITERALS.find_overlapping_iter(agent) {
        let place = found.pattern().as_usize();
        let best = match FAMILIES[place].1 {
            Of(_) => &mut browser,
            On(_) => &mut system,
            With(_) => &mut device,
        };
        *best = place.min(*best);
    }
    let family = |place: usize| FAMILIES.get(place).map(|(_, family)| *family);
    let browser = if let Some(Of(browser)) = family(browser) { browser } else { Browser::Unknown };
    let system = if let Some(On(system)) = family(system) { system } else { System::Unknown };
    let device = match (family(device), system) {
        (Some(With(device)), _) => device,
        // Tablets with Android omit the word "Mobile".
        (_, System::Android) => Device::Tablet,
        (_, System::Windows | System::Macos | System::Linux | System::ChromeOs | System::Bsd) => Device::Desktop,
        (_, System::Ios | System::Harmonyos | System::Kaios) => Device::Mobile,
        (_, System::OtherSystem) => Device::OtherDevice,
        (_, System::Unknown) => Device::Unknown,
    };
    (device, browser, system)
}
