// SPDX-License-Identifier: GPL-2.0-only

//! Two sets take turns, whoever comes back first.

use host_tests::store::metadata::Rounds;

/// Takes the set that gathers, which must be there.
fn take(rounds: &mut Rounds<char>) -> char {
    let gathering = rounds.gathering().copied();
    let taken = rounds.take().expect("a set gathers");
    assert_eq!(gathering, Some(taken));
    taken
}

#[test]
fn one_thread_always_has_a_set_to_gather_in() {
    let mut rounds = Rounds::new('a', 'b');
    for _ in 0..3 {
        let set = take(&mut rounds);
        assert!(rounds.gathering().is_some());
        rounds.put_back(set);
    }
}

/// A handover lets a second thread have an outcome while a first one still calls back.
fn two_threads(first_comes_back_first: bool) {
    let mut rounds = Rounds::new('a', 'b');
    let mut out = [take(&mut rounds), take(&mut rounds)];
    assert_eq!(rounds.gathering(), None);
    assert_eq!(rounds.take(), None);
    if !first_comes_back_first {
        out.reverse();
    }
    for set in out {
        rounds.put_back(set);
        assert!(rounds.gathering().is_some());
    }
    // none was lost: there are two again
    let mut both = [take(&mut rounds), take(&mut rounds)];
    both.sort_unstable();
    assert_eq!(both, ['a', 'b']);
}

#[test]
fn no_set_is_lost_when_the_first_thread_comes_back_first() {
    two_threads(true);
}

#[test]
fn no_set_is_lost_when_the_second_thread_comes_back_first() {
    two_threads(false);
}

#[test]
fn a_set_that_comes_back_gathers_before_the_other_does() {
    let mut rounds = Rounds::new('a', 'b');
    let first = take(&mut rounds);
    let second = take(&mut rounds);
    rounds.put_back(first);
    // the first set's next outcome comes while the second still is away
    let again = take(&mut rounds);
    assert_eq!(again, first);
    rounds.put_back(second);
    rounds.put_back(again);
    assert_eq!((take(&mut rounds), take(&mut rounds)), (second, again));
}
