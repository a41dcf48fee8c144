//! The example of a shop plays its story, in which everything goes wrong, and its books agree.

use support::process::Process;

#[test]
fn whatever_goes_wrong() {
    let mut story = Process::start("shop", &[], &[]);
    assert!(story.finish().success(), "{}", story.output);
    for said in ["mails that a person had to look up", "The shop keeps its books."] {
        assert!(story.output.contains(said), "{said}:\n{}", story.output);
    }
}
