package admin

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

var update = flag.Bool("update", false, "write the golden files")

// whens are the states that a revocation can meet, made of snapshot, whose clock is at midnight.
func whens(now time.Time) map[string]*keyring.Snapshot {
	behind := snapshot(now)
	proven := snapshot(now)
	proven.Keys[3].Created = now.Add(-24 * time.Hour)
	proven.Keys[3].Confirmed = map[string]time.Time{"file": now.Add(-23 * time.Hour), "slow": now.Add(-23*time.Hour + 300*time.Millisecond)}
	soon := proven.Clone()
	soon.Keys[3].Confirmed["slow"] = now.Add(-time.Hour)
	soon.Keys[1].Closed = now.Add(-time.Minute) // no retired key to fall back to
	alone := soon.Clone()
	alone.Config.SingleProcess = true
	adopting := proven.Clone()
	adopting.Adopted = []keyring.Adopted{{JWK: keyring.JWK{Kty: "EC", Alg: keyring.ES256, Kid: "a-foreign"}, Until: now.Add(100 * time.Hour)}}
	return map[string]*keyring.Snapshot{"behind": behind, "proven": proven, "soon": soon, "alone": alone, "adopting": adopting}
}

// TestExposure pins what a revocation is told to do, down to the sentences.
func TestExposure(t *testing.T) {
	for _, tc := range []struct{ name, when, path, body string }{
		{"standby", "proven", "/v1/keys/k-active/revoke", `{"reason":"leaked"}`},
		{"retired", "behind", "/v1/keys/k-active/revoke", `{"dry_run":true}`},
		{"nobody", "soon", "/v1/keys/k-active/revoke", `{"dry_run":true}`},
		{"sign-now", "soon", "/v1/keys/k-active/revoke", `{"dry_run":true,"sign_now":true}`},
		{"one-process", "alone", "/v1/keys/k-active/revoke", `{"dry_run":true}`},
		{"ring", "proven", "/v1/rings/web/revoke", `{"dry_run":true}`},
		{"ring-sign-now", "proven", "/v1/rings/web/revoke", `{"dry_run":true,"sign_now":true}`},
		{"several", "proven", "/v1/revoke", `{"dry_run":true,"kids":["k-retired","k-standby"]}`},
		{"adopted", "adopting", "/v1/keys/a-foreign/revoke", `{"dry_run":true}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := whens(time.Now())[tc.when]
				f := newFixture(t, func(c *Config) { c.Command = onPlan(s) })
				w := f.admin(root(), "POST", tc.path, tc.body)
				var got api.RevokeResponse
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
					t.Fatalf("%d %s: %v", w.Code, w.Body, err)
				}
				doc, err := json.MarshalIndent(got, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				golden(t, "exposure-"+tc.name+".json", string(doc)+"\n")
			})
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is answered (run with -update and look at the difference):\n%s", path, got)
	}
}

// TestRevokedBefore: to revoke again is no error and says that nothing changed.
func TestRevokedBefore(t *testing.T) {
	s := whens(time.Now())["adopting"]
	plan := onPlan(s)
	_, after, err := plan(t.Context(), keyring.Command{Revoke: []string{"k-active", "a-foreign"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{
		"/v1/keys/k-active/revoke": `{"reason":"again"}`,
		"/v1/revoke":               `{"reason":"again","kids":["k-active","a-foreign"]}`,
	} {
		f := newFixture(t, func(c *Config) { c.Command = onPlan(after) })
		w := f.admin(root(), "POST", path, body)
		var got api.RevokeResponse
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		if got.Changed || len(got.Revoked)+len(got.Successors)+len(got.Targets)+len(got.Consumers) != 0 || len(got.AlreadyRevoked) == 0 || got.CutOff != nil {
			t.Errorf("%s: %+v", path, got)
		}
		if log := f.log.String(); !strings.Contains(log, "changes nothing") || strings.Contains(log, "revoked by") {
			t.Errorf("%s: the log tells %s", path, log)
		}
		if strings.Contains(w.Body.String(), "null") {
			t.Errorf("%s: a list is null: %s", path, w.Body)
		}
	}
}

// TestAcceptance: what is retired leaves its ring to the standby, if that is proven.
func TestAcceptance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for name, tc := range map[string]struct {
			when string
			want string
		}{
			"a proven standby": {"proven", "standby k-standby 0001-01-01T00:00:00Z []"},
			"one too young":    {"soon", "none k-standby 2000-01-01T09:16:40Z []"},
			"one not shown":    {"behind", "none k-standby 0001-01-01T00:00:00Z [slow]"},
		} {
			s := whens(now)[tc.when]
			a, err := keyring.Accept(s, nil, map[string][]string{"vaultkv": {"k-standby"}}, false, "w9", now)
			if err != nil {
				t.Fatal(err)
			}
			got := acceptance("main", a, true, now)
			if got.Generation != 8 || got.Lineage != "lin" || !got.DryRun || len(got.Retired) != 1 || got.Dropped == nil || len(got.Successors) != 1 {
				t.Fatalf("%s: %+v", name, got)
			}
			who := got.Successors[0]
			if said := fmt.Sprintf("%s %s %s %v", who.Kind, who.Kid, who.SafeAt.Format(time.RFC3339), who.WaitingFor); said != tc.want {
				t.Errorf("%s: %s, want %s", name, said, tc.want)
			}
			if (who.Kind == api.SuccessorNone) != (len(who.Breaks) > 0) {
				t.Errorf("%s: breaks %q", name, who.Breaks)
			}
		}
	})
}

func TestWhole(t *testing.T) {
	second := time.Date(2026, 1, 1, 12, 0, 5, 0, time.FixedZone("", 7200))
	for _, tc := range []struct{ in, want time.Time }{
		{second, second}, {second.Add(1), second.Add(time.Second)}, {second.Add(999 * time.Millisecond), second.Add(time.Second)}, {time.Time{}, time.Time{}},
	} {
		if got := whole(tc.in); !got.Equal(tc.want) || got.Location() != time.UTC {
			t.Errorf("whole(%s) = %s, want %s in UTC", tc.in, got, tc.want)
		}
	}
}
