//! Secrets in a segment of a path: values of names that indicate a secret, and tokens with a known issuer's prefix.

/// Suffixes of names whose value is a secret (`reset_token=…`, `X-Amz-Signature=…`). Compared without `_`, `-` and case.
const NAME_ENDS: [&str; 19] = [
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "signature",
    "sessionid",
    "sessid",
    "credential",
    "credentials",
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "sessionkey",
    "authkey",
];

/// Whole names whose value is a secret; as suffixes they would be too short (`topass`, `stopemail`).
const NAMES: [&str; 12] =
    ["auth", "pass", "sid", "sig", "otp", "jwt", "session", "nonce", "bearer", "saml", "email", "mail"];

/// Beginnings of tokens that are known for their issuers (AWS, GitHub, GitLab, Slack, Stripe, npm, …), and how many letters and digits follow at least.
const PREFIXES: [(&str, usize); 25] = [
    ("AKIA", 16),
    ("ASIA", 16),
    ("AIza", 30),
    ("eyJ", 12),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxa-", 8),
    ("xoxb-", 8),
    ("xoxp-", 8),
    ("xoxr-", 8),
    ("xoxs-", 8),
    ("sk-", 20),
    ("sk_live_", 14),
    ("sk_test_", 14),
    ("rk_live_", 14),
    ("cus_", 12),
    ("npm_", 20),
    ("hf_", 20),
    ("dop_v1_", 20),
    ("ya29.", 12),
];

/// Shortest run of letters and digits that can be a known issuer's token.
const MIN_TOKEN_BYTES: usize = 8;

/// Whether the text contains a value whose name indicates a secret.
pub(super) fn has_named_secret(text: &str) -> bool {
    text.split([';', ',', '~', '+', '&', '?', ' ']).any(|pair| {
        let Some(at) = pair.find(['=', ':']) else { return false };
        let (name, value) = (&pair[..at], &pair[at + 1..]);
        if value.is_empty() || !(name.is_ascii() && name.len() <= 64) {
            return false;
        }
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        let named = NAMES.contains(&plain.as_str()) || NAME_ENDS.iter().any(|end| plain.ends_with(end));
        // `Password:Reset` may be a page of a wiki, `key=value` one about syntax; `key=hunter2` is neither.
        let drawn = value.bytes().any(|b| b.is_ascii_digit());
        match pair.as_bytes()[at] {
            b'=' => named || (plain == "key" && drawn),
            _ => named && drawn && value.len() >= 8,
        }
    })
}

/// Whether a run of letters and digits starts like a known issuer's token, or follows such a prefix.
pub(super) fn has_known_token(text: &str) -> bool {
    super::runs(text).any(|(start, run)| {
        run.len() >= MIN_TOKEN_BYTES
            && run.bytes().any(|b| b.is_ascii_digit())
            && PREFIXES.iter().any(|(prefix, min_len)| {
                let before = text[..start].strip_suffix(prefix);
                let begins = before.is_some_and(|before| !before.ends_with(|c: char| c.is_ascii_alphanumeric()));
                let rest = if begins { Some(run) } else { run.strip_prefix(prefix) };
                rest.is_some_and(|rest| rest.len() >= *min_len)
            })
    })
}
