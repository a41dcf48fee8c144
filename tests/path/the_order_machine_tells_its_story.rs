//! The example program plays its story and agrees with itself.

use support::process::Process;

#[test]
fn and_every_event_has_its_verdict() {
    let mut story = Process::start("order-machine", &[], &[]);
    assert!(story.finish().success(), "{}", story.output);
    for said in ["stateDiagram-v2", "digraph \"order\"", "the payment was credited once"] {
        assert!(story.output.contains(said), "{said}:\n{}", story.output);
    }
}
