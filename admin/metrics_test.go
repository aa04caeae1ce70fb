package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// scrape returns the samples of our own metrics, without comments, histogram
// buckets and sums.
func (f *fixture) scrape(t *testing.T) []string {
	t.Helper()
	w := f.status("/metrics")
	if w.Code != 200 {
		t.Fatalf("/metrics = %d %s", w.Code, w.Body)
	}
	var out []string
	for line := range strings.Lines(w.Body.String()) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "keyturn_") && !strings.Contains(line, "_bucket{") && !strings.Contains(line, "_seconds_sum") && !strings.HasPrefix(line, "keyturn_build_info") {
			out = append(out, line)
		}
	}
	return out
}

// eventful makes every metric have a sample.
func eventful(f *fixture) {
	m := f.cfg.Metrics
	m.Signed("orders", "ES256", "ok", 300*time.Microsecond)
	m.Signed("orders", "ES256", "ok", 300*time.Microsecond)
	m.Signed("orders", "", "ttl_too_long", 50*time.Microsecond)
	for _, kind := range []keyring.EventKind{keyring.KeyActivated, keyring.KeyRevoked, keyring.KeyForced, keyring.KeyDamaged, keyring.KeyReinstated, keyring.LeaseRenewed} {
		m.Event("main", keyring.Event{Kind: kind, Ring: "web", Kid: "k"})
	}
	m.Event("main", keyring.Event{Kind: keyring.ConfirmationVoided, Ring: "web", Kid: "k", Target: "slow"})
	m.Event("main", keyring.Event{Kind: keyring.ManifestFrozen})
	m.Event("main", keyring.Event{Kind: keyring.ManifestAccepted})
	m.Conflicted("main")
	m.Published("main", "file", true)
	m.Published("main", "slow", false)
	m.Drifted("main", "file")
	m.StoreError("load", fmt.Errorf("x: %w", keyring.ErrUnavailable))
	m.Refusals("sign/default")()
	m.Refusals("public")
	m.Reloaded(true)
	m.Reloaded(false)
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, full)
		f.Accept("main", snapshot(time.Now()))
		eventful(f)
		want := []string{ // midnight is 946684800
			`keyturn_adopted_keys{issuer="main"} 0`,
			`keyturn_alarms{code="confirm_behind"} 1`,
			`keyturn_clock_doubt{issuer="main"} 0`,
			`keyturn_config_last_reload_successful 0`,
			`keyturn_config_reloads_total{result="error"} 1`,
			`keyturn_config_reloads_total{result="ok"} 1`,
			`keyturn_confirmations_voided_total{issuer="main",target="file"} 0`,
			`keyturn_confirmations_voided_total{issuer="main",target="slow"} 1`,
			`keyturn_conflicts_total{issuer="main"} 1`,
			`keyturn_connections_refused_total{listener="public"} 0`,
			`keyturn_connections_refused_total{listener="sign/default"} 1`,
			`keyturn_damaged_halves{issuer="main",ring="old"} 0`,
			`keyturn_damaged_halves{issuer="main",ring="web"} 0`,
			`keyturn_damaged_keys_total{issuer="main",ring="web"} 1`,
			`keyturn_forced_activations_total{issuer="main",ring="web"} 1`,
			`keyturn_key_activated_timestamp_seconds{issuer="main",ring="web"} 9.466812e+08`,
			`keyturn_keys{issuer="main",ring="old",state="active"} 0`,
			`keyturn_keys{issuer="main",ring="old",state="closed"} 0`,
			`keyturn_keys{issuer="main",ring="old",state="retired"} 0`,
			`keyturn_keys{issuer="main",ring="old",state="revoked"} 0`,
			`keyturn_keys{issuer="main",ring="old",state="standby"} 0`,
			`keyturn_keys{issuer="main",ring="old",state="withdrawn"} 1`,
			`keyturn_keys{issuer="main",ring="web",state="active"} 1`,
			`keyturn_keys{issuer="main",ring="web",state="closed"} 0`,
			`keyturn_keys{issuer="main",ring="web",state="retired"} 1`,
			`keyturn_keys{issuer="main",ring="web",state="revoked"} 0`,
			`keyturn_keys{issuer="main",ring="web",state="standby"} 1`,
			`keyturn_keys{issuer="main",ring="web",state="withdrawn"} 0`,
			`keyturn_lease_expiry_timestamp_seconds{issuer="main"} 9.467136e+08`,
			`keyturn_manifest_accepts_total{issuer="main"} 1`,
			`keyturn_manifest_freezes_total{issuer="main"} 1`,
			`keyturn_manifest_frozen{issuer="main"} 0`,
			`keyturn_manifest_generation{issuer="main"} 7`,
			`keyturn_manifest_read_timestamp_seconds{issuer="main"} 9.46684799e+08`,
			`keyturn_next_rotation_timestamp_seconds{issuer="main",ring="web"} 9.46782e+08`,
			`keyturn_orphans{issuer="main"} 0`,
			`keyturn_publication_drifts_total{issuer="main",target="file"} 1`,
			`keyturn_publication_drifts_total{issuer="main",target="slow"} 0`,
			`keyturn_publications_total{issuer="main",result="error",target="slow"} 1`,
			`keyturn_publications_total{issuer="main",result="ok",target="file"} 1`,
			`keyturn_reinstatements_total{issuer="main",ring="web"} 1`,
			`keyturn_revocations_total{issuer="main",ring="web"} 1`,
			`keyturn_rotation_overdue{issuer="main",ring="web"} 0`,
			`keyturn_rotations_total{issuer="main",ring="web"} 1`,
			`keyturn_sign_duration_seconds_count{algorithm=""} 1`,
			`keyturn_sign_duration_seconds_count{algorithm="ES256"} 2`,
			`keyturn_sign_requests_total{code="ok",profile="orders"} 2`,
			`keyturn_sign_requests_total{code="ttl_too_long",profile="orders"} 1`,
			`keyturn_signatures_total{algorithm="ES256",profile="orders"} 2`,
			`keyturn_store_errors_total{cause="unavailable",op="load"} 1`,
			`keyturn_target_confirmed_timestamp_seconds{issuer="main",target="slow"} 9.4668479e+08`,
			`keyturn_vault_token_expiry_timestamp_seconds 9.466884e+08`,
		}
		if diff := cmp.Diff(want, f.scrape(t)); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

func TestMetricsOfGoAndProcessAndBuild(t *testing.T) {
	body := newFixture(t, nil).status("/metrics").Body.String()
	for _, want := range []string{"go_goroutines", "process_open_fds", `revision="abc",version="1.2.3"} 1`, "keyturn_config_last_reload_successful 1"} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
}

func TestMetricsLint(t *testing.T) {
	f := newFixture(t, full)
	f.Accept("main", snapshot(time.Now()))
	eventful(f)
	problems, err := testutil.GatherAndLint(f.cfg.Metrics.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	// The linter sees bad names.
	bad, err := promlint.New(strings.NewReader("# TYPE keyturn_things counter\nkeyturn_things 1\n")).Lint()
	if err != nil || len(bad) == 0 {
		t.Errorf("the linter found nothing wrong with a bad name: %v", err)
	}
}

// TestMetricsDropWhatIsGone: series follow the snapshot, not history.
func TestMetricsDropWhatIsGone(t *testing.T) {
	f := newFixture(t, nil)
	f.Accept("main", snapshot(time.Now()))
	before := f.scrape(t)
	s := snapshot(time.Now())
	s.Keys, s.Lease = s.Keys[1:2], time.Time{}
	f.Accept("main", s)
	after := strings.Join(f.scrape(t), "\n")
	if !strings.Contains(strings.Join(before, "\n"), `ring="old"`) {
		t.Fatal("there was nothing to drop")
	}
	for _, gone := range []string{`ring="old"`, "keyturn_key_activated", "keyturn_lease_expiry"} {
		if strings.Contains(after, gone) {
			t.Errorf("%s is still there", gone)
		}
	}
}

func TestMetricsOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		due := time.Now()
		f := newFixture(t, func(c *Config) {
			c.Next = func(keyring.Ring, *keyring.Snapshot) time.Time { return due }
		})
		s := snapshot(time.Now())
		f.Accept("main", s)
		overdue := func() bool {
			return strings.Contains(strings.Join(f.scrape(t), "\n"), `keyturn_rotation_overdue{issuer="main",ring="web"} 1`)
		}
		time.Sleep(20 * time.Second) // two synchronisations
		time.Sleep(time.Second)
		if overdue() {
			t.Error("overdue while the lead of a young standby runs")
		}
		old := s.Clone()
		old.Keys[len(old.Keys)-1].Created = time.Now().Add(-24 * time.Hour)
		due = time.Now()
		f.Accept("main", old)
		time.Sleep(20 * time.Second)
		if overdue() {
			t.Error("overdue while there was still time")
		}
		time.Sleep(time.Second)
		if !overdue() {
			t.Error("not overdue")
		}
		due = time.Time{} // a ring without an active key is due, not overdue
		if overdue() {
			t.Error("overdue although nothing is due")
		}
	})
}

// TestMetricsAreBounded: callers choose profiles and errors hold all sorts of
// things; neither makes series.
func TestMetricsAreBounded(t *testing.T) {
	f := newFixture(t, nil)
	m := f.cfg.Metrics
	for i := range 1000 {
		m.Signed(fmt.Sprint("made-up-", i), fmt.Sprint("HS", i), fmt.Sprint("code-", i), time.Millisecond)
		m.StoreError("load", fmt.Errorf("attempt %d", i))
	}
	want := []string{
		`keyturn_alarms{code="no_set"} 1`,
		`keyturn_clock_doubt{issuer="main"} 0`,
		`keyturn_config_last_reload_successful 1`,
		`keyturn_config_reloads_total{result="error"} 0`,
		`keyturn_config_reloads_total{result="ok"} 0`,
		`keyturn_manifest_frozen{issuer="main"} 0`,
		`keyturn_sign_duration_seconds_count{algorithm=""} 1000`,
		`keyturn_sign_requests_total{code="other",profile=""} 1000`,
		`keyturn_store_errors_total{cause="other",op="load"} 1000`,
	}
	if diff := cmp.Diff(want, f.scrape(t)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestSetProfiles(t *testing.T) {
	f := newFixture(t, nil)
	m := f.cfg.Metrics
	m.Signed("orders", "ES256", "ok", time.Millisecond)
	m.SetProfiles([]string{"bills"})
	m.Signed("bills", "EdDSA", "ok", time.Millisecond)
	m.Signed("orders", "ES256", "forbidden", time.Millisecond)
	got := strings.Join(f.scrape(t), "\n")
	if strings.Contains(got, `profile="orders"`) {
		t.Errorf("series of a profile that is gone:\n%s", got)
	}
	for _, want := range []string{
		`keyturn_signatures_total{algorithm="EdDSA",profile="bills"} 1`, `keyturn_sign_requests_total{code="forbidden",profile=""} 1`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("metrics lack %s:\n%s", want, got)
		}
	}
}

func TestCause(t *testing.T) {
	for want, err := range map[string]error{
		"unavailable": fmt.Errorf("load: %w", keyring.ErrUnavailable),
		"timeout":     fmt.Errorf("%w: %w", keyring.ErrUnavailable, context.DeadlineExceeded),
		"denied":      keyring.ErrDenied,
		"conflict":    keyring.ErrConflict,
		"mismatch":    keyring.ErrMismatch,
		"other":       errors.New("hvs.CAESIsecret"),
	} {
		if got := cause(err); got != want {
			t.Errorf("cause(%v) = %s, want %s", err, got, want)
		}
	}
}

// TestScrapesDuringChange is for the race detector.
func TestScrapesDuringChange(t *testing.T) {
	f := newFixture(t, nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				f.Accept("main", snapshot(time.Now()))
				f.cfg.Metrics.Signed("orders", "ES256", "ok", time.Millisecond)
				f.cfg.Metrics.SetProfiles([]string{"orders"})
			}
		})
		wg.Go(func() {
			for range 20 {
				f.scrape(t)
				f.status("/")
				f.admin(root(), "GET", "/v1/issuers", "")
			}
		})
	}
	wg.Wait()
}

// TestMetricsOfDegradedStates: each shows in a series of its own, and none of
// them names a kid.
func TestMetricsOfDegradedStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alarms []keyring.Alarm
		f := newFixture(t, func(c *Config) {
			c.Alarms = func() []keyring.Alarm { return alarms }
			c.Targets = func(string) []api.Target {
				return []api.Target{{Name: "file", ServeUntil: time.Now().Add(time.Hour)}}
			}
		})
		s := snapshot(time.Now())
		s.Keys[3].Confirmed["slow"] = time.Now()
		s.Orphans = []keyring.Orphan{{Kid: "o1"}, {Kid: "o2"}}
		s.Adopted = []keyring.Adopted{{JWK: keyring.JWK{Kid: "a1"}}}
		f.Accept("main", s)
		for name, tc := range map[string]struct {
			alarms []keyring.Alarm
			want   []string
		}{
			"none": {nil, []string{
				`keyturn_manifest_frozen{issuer="main"} 0`, `keyturn_clock_doubt{issuer="main"} 0`, `keyturn_damaged_halves{issuer="main",ring="web"} 0`,
				`keyturn_orphans{issuer="main"} 2`, `keyturn_adopted_keys{issuer="main"} 1`,
				`keyturn_target_serve_until_timestamp_seconds{issuer="main",target="file"} 9.466884e+08`,
				`keyturn_key_safe_timestamp_seconds{issuer="main",ring="web"} 9.467218e+08`, // lead 37000 s
			}},
			"frozen":  {[]keyring.Alarm{{Code: "frozen", Issuer: "main"}}, []string{`keyturn_manifest_frozen{issuer="main"} 1`, `keyturn_alarms{code="frozen"} 1`}},
			"missing": {[]keyring.Alarm{{Code: "manifest_missing", Issuer: "main"}}, []string{`keyturn_manifest_frozen{issuer="main"} 1`}},
			"corrupt": {[]keyring.Alarm{{Code: "manifest_corrupt", Issuer: "main"}}, []string{`keyturn_manifest_frozen{issuer="main"} 1`}},
			"behind":  {[]keyring.Alarm{{Code: "manifest_behind", Issuer: "main"}}, []string{`keyturn_manifest_frozen{issuer="main"} 1`}},
			"another": {[]keyring.Alarm{{Code: "frozen", Issuer: "other"}}, []string{`keyturn_manifest_frozen{issuer="main"} 0`}},
			"clock":   {[]keyring.Alarm{{Code: "clock_fault", Issuer: "main"}}, []string{`keyturn_clock_doubt{issuer="main"} 1`, `keyturn_manifest_frozen{issuer="main"} 0`}},
			"halves": {[]keyring.Alarm{
				{Code: "half_damaged", Issuer: "main", Ring: "web", Kid: "k-active"}, {Code: "key_missing", Issuer: "main", Ring: "web", Kid: "k-active"},
				{Code: "key_mismatch", Issuer: "main", Ring: "web", Kid: "k-standby"}, {Code: "key_missing", Issuer: "main", Kid: "k-unheard-of"},
			}, []string{`keyturn_damaged_halves{issuer="main",ring="web"} 2`, `keyturn_damaged_halves{issuer="main",ring="old"} 0`}},
		} {
			alarms = tc.alarms
			got := f.scrape(t)
			for _, want := range tc.want {
				if !slices.Contains(got, want) {
					t.Errorf("%s: no %s in\n%s", name, want, strings.Join(got, "\n"))
				}
			}
			if strings.Contains(strings.Join(got, "\n"), "k-") {
				t.Errorf("%s: a kid is a label:\n%s", name, strings.Join(got, "\n"))
			}
		}
	})
}
