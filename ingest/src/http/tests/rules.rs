//! The rules of the classification that depend on the request: each decides a case.

use super::*;
use crate::agents::AUTOMATED_BROWSER;
use crate::agents::switch::{Rule, without};

const PERSON: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0";

#[test]
fn no_rule_of_the_request_can_be_left_out() {
    let endpoint = Endpoint::new();
    // Views by people and by automated browsers that one request adds.
    let counted = |header: (&str, &str), webdriver: u64| {
        let request = HttpRequest::post("/v1/pageview").header("user-agent", PERSON).header(header.0, header.1);
        let body = json!({"url": PAGE, "webdriver": webdriver}).to_string().into_bytes();
        assert_eq!(endpoint.send(request, body), 202);
        let (mut people, mut driven) = (0, 0);
        for bytes in endpoint.records() {
            if let Record::PageView(view) = record::decode(&bytes).unwrap() {
                driven += u64::from((view.bot, view.bot_class) == AUTOMATED_BROWSER);
                people += u64::from(view.bot.is_empty());
            }
        }
        (people, driven)
    };
    let none = ("x-none", "1");
    let headless = ("sec-ch-ua", "\"HeadlessChrome\";v=\"142\", \"Not_A Brand\";v=\"99\"");
    for (rule, header, webdriver, expected) in [
        (Rule::Prefetch, ("sec-purpose", "prefetch"), 0, (0, 0)),
        (Rule::HeadlessBrand, headless, 0, (0, 1)),
        (Rule::Webdriver, none, 1, (0, 1)),
    ] {
        assert_eq!(counted(header, webdriver), expected, "{rule:?}");
        assert_eq!(without(rule, || counted(header, webdriver)), (1, 0), "without {rule:?}");
    }
    assert_eq!(counted(none, 0), (1, 0));
}
