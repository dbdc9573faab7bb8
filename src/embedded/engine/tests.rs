//! Stories with the real engine. They need it: HEADCOUNT_CHDB, or one of the default places.

use super::*;

#[tokio::test]
async fn starts() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::start(&EngineConfig::new(dir.path())).await.unwrap();
    engine.stop().await.unwrap();
}
