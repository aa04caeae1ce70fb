package verify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/audit"
)

func wantNote(t *testing.T, r Report, words ...string) {
	t.Helper()
	if !slices.ContainsFunc(r.Notes, func(n string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(n, w) })
	}) {
		t.Errorf("no note is %q: %q", words, r.Notes)
	}
}

func TestHolds(t *testing.T) {
	j := newJournal(t, memDir(t))
	j.append(3)
	j.anchor()
	early := j.heads[0]
	j.append(3)
	other, beyond, foreign := early, early, early
	other.Hash, beyond.Seq, foreign.Chain = strings.Repeat("a", 64), 9, "ANOTHER"
	check := func(what string, h audit.Head, holds, known bool) {
		t.Helper()
		if a, b, err := Holds(j.path, h); err != nil || a != holds || b != known {
			t.Errorf("%s: %v, %v, %v; want %v, %v", what, a, b, err, holds, known)
		}
	}
	check("an early head", early, true, true)
	check("another hash", other, false, true)
	check("beyond", beyond, false, true)
	check("another chain", foreign, false, false)
	j.rotate()
	j.append(1)
	check("rotated away", early, false, false)
}

// TestHeld: a record that has to be there is missed also where anchors would let
// it go, and does not hide what the anchors say.
func TestHeld(t *testing.T) {
	j, other := newJournal(t, memDir(t)), newJournal(t, memDir(t))
	j.append(3)
	j.anchor()
	j.rotate()
	j.append(3)
	j.anchor()
	other.append(3)
	other.anchor()
	first, last, foreign := j.heads[0], j.heads[1], other.heads[0]
	r := verified(t, []string{j.path}, Known{Anchors: j.heads})
	wantWhole(t, r)
	wantNote(t, r, "begins at record 4 here, at "+j.path+":1")
	wantNote(t, r, "of the records before 4, record 3 was anchored at ")
	r = verified(t, []string{j.path}, Known{Anchors: j.heads, Held: []audit.Head{first}})
	wantDamage(t, r, Dropped, j.path, 1)
	wantMessage(t, r, "record 3 has to be in the log", "begins at record 4", "name the older files, too")
	wantWhole(t, verified(t, j.files(), Known{Held: []audit.Head{first, last}}))
	// Which log is here is not for the one who names a record of it to say.
	r = verified(t, []string{other.path}, Known{Anchors: j.heads, Held: []audit.Head{foreign}})
	wantDamage(t, r, Replaced, "", 0)
	wantMessage(t, r, "the chain "+last.Chain+", anchored up to record 6")
	r = verified(t, j.files(), Known{Anchors: j.heads, Held: []audit.Head{foreign}})
	wantDamage(t, r, Replaced, "", 0)
	wantMessage(t, r, "the chain "+foreign.Chain)
	first.Hash = strings.Repeat("a", 64)
	r = verified(t, j.files(), Known{Held: []audit.Head{first}})
	wantDamage(t, r, Changed, j.old[0], 3)
}

// TestAnchoredEnd: what follows an anchored record is held against it, and not
// the other way round.
func TestAnchoredEnd(t *testing.T) {
	j := newJournal(t, memDir(t))
	j.append(3)
	j.anchor()
	j.must(j.log.Close())
	log := j.lines()
	head := j.heads[0]
	log[0] = append(log[0], reseal(`{"x":1`, digest("a"), 4, head.Chain))
	j.write(log)
	r := j.verify(head)
	wantDamage(t, r, Changed, j.path, 4)
	wantMessage(t, r, "record 4 does not follow record 3, which was anchored")
	if len(r.Damages) != 1 {
		t.Errorf("%+v", r.Damages)
	}
	r = j.verify() // here either may be the forged one
	wantDamage(t, r, Changed, j.path, 3)
	wantMessage(t, r, "one of them was replaced")

	log[0] = log[0][:3]
	log[0][2].text = strings.Replace(log[0][2].text, "4711", "4712", 1)
	j.write(log)
	r = j.verify(head)
	wantDamage(t, r, Truncated, j.path, 2)
	wantMessage(t, r, "the log ends at record 2, and record 3 was anchored at ", "1 record or more is missing or changed at the end")
	log[0] = log[0][:1]
	j.write(log)
	wantMessage(t, j.verify(head), "2 records or more are missing at the end; name the newer files, too")
}

// TestRewritten: one damage for a log that was written anew, at the first
// anchored record that is another one.
func TestRewritten(t *testing.T) {
	j := newJournal(t, memDir(t))
	for range 4 {
		j.append(2)
		j.anchor()
	}
	j.must(j.log.Close())
	log := j.lines()
	prev := log[0][2].Hash
	for i := 3; i < len(log[0]); i++ {
		log[0][i] = reseal(`{"x":1`, prev, log[0][i].Seq, log[0][i].Chain)
		prev = log[0][i].Hash
	}
	j.write(log)
	r := j.verify(j.heads...)
	if len(r.Damages) != 1 || r.Damages[0].Kind != Changed || r.Damages[0].Line != 4 || r.Damages[0].Seq != 4 {
		t.Errorf("%+v", r.Damages)
	}
	wantMessage(t, r, "record 4 is not the one that was anchored at ", "from record 3 on, or one of those after it")
}

// TestSeveralChains: who reads the answer learns that there are several, and
// that an anchored one is not there.
func TestSeveralChains(t *testing.T) {
	a, b := newJournal(t, memDir(t)), newJournal(t, memDir(t))
	a.append(2)
	b.append(2)
	a.anchor()
	b.anchor()
	r := verified(t, []string{a.path, b.path}, Known{})
	if wantWhole(t, r); len(r.Notes) != 2 {
		t.Errorf("notes %q", r.Notes)
	}
	wantNote(t, r, "no anchor was given", "--config and --anchor give one")
	wantNote(t, r, "there are 2 chains: "+a.heads[0].Chain+" from "+a.path+":1 on, "+b.heads[0].Chain+" from "+b.path+":1 on.")
	wantNote(t, verified(t, []string{a.path, b.path}, Known{Anchors: a.heads}), b.heads[0].Chain, "no anchor falls into records 1 to 2")
	// The newest anchor says which log has to be there.
	old := a.heads[0]
	old.Time = old.Time.Add(-time.Hour)
	r = verified(t, []string{b.path}, Known{Anchors: []audit.Head{b.heads[0], old}})
	wantWhole(t, r)
	wantNote(t, r, "chain "+old.Chain+", anchored up to record 2 at ", "is not in these files: a log before this one")
	r = verified(t, []string{a.path}, Known{Anchors: []audit.Head{b.heads[0], old}})
	wantDamage(t, r, Replaced, "", 0)
}

// TestNothing: a log without a record is no whole log.
func TestNothing(t *testing.T) {
	j := newJournal(t, memDir(t))
	r := j.verify()
	if wantNote(t, r, "there is no record in these files"); !r.OK() || r.Records != 0 || len(r.Notes) != 1 {
		t.Errorf("%+v", r)
	}
	head := audit.Head{Chain: "C", Seq: 7, Hash: strings.Repeat("a", 64)}
	for _, known := range []Known{{Anchors: []audit.Head{head}}, {Held: []audit.Head{head}}} {
		r = verified(t, j.files(), known)
		wantMessage(t, r, "there is no record in these files, and record 7 of chain C was anchored")
		if r.Damages[0].Seq != 7 || r.Damages[0].Kind != Truncated {
			t.Errorf("%+v", r.Damages)
		}
	}
}
