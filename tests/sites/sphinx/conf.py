"""Quill's documentation, with the theme and the version that scripts/sites names."""

import os

project = "Quill"
html_theme = os.environ["SITE_THEME"]
version = release = os.environ["SITE_VERSION"]
language = os.environ.get("SITE_LANGUAGE", "en")
extensions = ["notfound.extension"]
notfound_urls_prefix = f"/{language}/{version}/"
# A docs host names the version that search engines are to show, whichever version the page is of.
html_baseurl = "https://docs.example.org/en/stable/"
html_js_files = [
    (
        "https://stats.example.org/beacon.js",
        {"defer": "defer", "data-project": os.environ["SITE_PROJECT"], "data-version": version},
    ),
]
