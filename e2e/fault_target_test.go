package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFaultTarget: one of three required targets cannot be reached. The other
// two stay current, no key signs that the third has not shown, the overdue
// rotation shows with the name of that target, and it happens when the target
// is back and the lead has passed.
// (TestTargetThatLies is a target that answers, and with an old set;
// TestFileFolderWithoutRoom is one that cannot be written.)
func TestFaultTarget(t *testing.T) {
	t.Parallel()
	const lead = 3 * time.Second // consumer_cache + clock_skew
	s := newSite(t)
	w := newWire(t, "http://"+s.public)
	url := w.url() + "/.well-known/jwks.json"
	s.edit("      - {name: endpoint, http: true}", "      - {name: endpoint, http: true}\n    confirm: [\""+url+"\"]")
	d := s.start("web")
	known := []string{d.mustToken("web").Kid, d.standby(15*time.Second, "web").Kid}
	tr := startTraffic(&traffic{t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"web", d, ask("web")}}, cache: 2 * time.Second})

	w.cut()
	d.reason(15*time.Second, "degraded", "confirm_failed", url)
	d.alarmed("confirm_failed", true)
	d.reason(40*time.Second, "degraded", "rotation_overdue", url)
	d.alarmed("rotation_overdue", true)
	next := d.othersAreCurrent(t, s, url)
	if late := d.metric(`keyturn_rotation_overdue{issuer="main",ring="web"}`); !strings.HasSuffix(late, " 1") {
		t.Errorf("the rotation that is due does not show: %q", late)
	}
	// As long again as a period: it does not wear off.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if kid := tr.signer("web"); kid != known[1] {
			t.Fatalf("%s signs, and %s has shown only %v", kid, url, known)
		}
	}
	back := time.Now()
	w.mend()
	within(t, 30*time.Second, "the rotation that was overdue", func() error {
		if kid := tr.signer("web"); kid != next {
			return fmt.Errorf("%s signs, want %s", kid, next)
		}
		return nil
	})
	if k, _ := d.key("web", "active"); k.ActivatedAt.Before(back.Add(lead)) {
		t.Errorf("%s became active %s after the target was back, and the lead is %s", k.Kid, k.ActivatedAt.Sub(back), lead)
	}
	d.reason(15*time.Second, "ok", "", "")
	d.alarmed("rotation_overdue", false)
	d.alarmed("confirm_failed", false)
	tr.rotation(30*time.Second, 0)
}

// othersAreCurrent wants the standby that waits for one target in the file and
// at the endpoint, and returns its kid.
func (d *daemon) othersAreCurrent(t *testing.T, s *site, url string) string {
	t.Helper()
	next, found := d.key("web", "standby")
	if !found || !slices.Equal(next.WaitingFor, []string{url}) || !next.SafeAt.IsZero() {
		t.Errorf("standby %+v, want it to wait for %s", next, url)
	}
	if kids, err := kidsIn(must1(os.ReadFile(s.path("www/jwks.json")))(t)); err != nil || !slices.Contains(kids, next.Kid) {
		t.Errorf("the file holds %v, want %s: %v", kids, next.Kid, err)
	}
	set, err := (&traffic{client: http.DefaultClient}).fetch(d.jwksURL())
	if err == nil && len(set.keys.Key(next.Kid)) != 1 {
		err = errors.New("it is not in the set")
	}
	if err != nil {
		t.Errorf("%s at the endpoint: %v", next.Kid, err)
	}
	return next.Kid
}
