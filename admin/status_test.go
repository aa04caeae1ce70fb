package admin

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

func TestStatusPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, full)
		f.Accept("main", snapshot(time.Now()))
		w := f.status("/")
		page := w.Body.String()
		if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("%d %s", w.Code, w.Header())
		}
		for _, want := range []string{
			`<meta http-equiv="refresh" content="10">`,
			`<span class="state degraded">degraded</span>`,
			"keyturn 1.2.3", "rotator, signer",
			"Issuer main", "https://tokens.example.com", "generation 7",
			"lease ends 2000-01-01 08:00:00Z (in 8h0m0s)", "lead 10h16m40s",
			"Ring web: ES256, vaultkv", "<code>0 3 * * 0</code>", "Ring old: ES256, vaultkv, being drained",
			"Next rotation 2000-01-02 03:00:00Z (in 27h0m0s)",
			"<code>k-standby</code>", `<td class="state active">active</td>`,
			"<td>slow</td>", "https://cdn.example.com/jwks.json", "<td>stale</td>",
			"<strong>confirm_behind</strong> · issuer main · target slow: an old set",
			"manifest read 1999-12-31 23:59:59Z (1s ago)",
		} {
			if !strings.Contains(page, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		if strings.Contains(page, "Why it cannot sign") {
			t.Error("the page says that it cannot sign")
		}
		for _, never := range []string{"<script", "javascript:", "http://", "onload"} {
			if strings.Contains(page, never) {
				t.Errorf("the page holds %q", never)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'unsafe-inline'") {
			t.Errorf("Content-Security-Policy %q", csp)
		}
	})
}

// TestStatusPageEscapes: names, targets and errors come from elsewhere.
func TestStatusPageEscapes(t *testing.T) {
	const evil = `"><script>alert(1)</script>`
	f := newFixture(t, func(c *Config) {
		c.Targets = func(string) []api.Target {
			return []api.Target{{Name: evil, Kind: evil, Location: "javascript:" + evil, Error: evil}}
		}
		c.Alarms = func() []keyring.Alarm {
			return []keyring.Alarm{{Code: evil, Issuer: evil, Target: evil, Kid: evil, Message: evil}}
		}
		c.SignerAlarms = func() []keyring.Alarm { return []keyring.Alarm{{Code: "no_key", Message: evil}} }
	})
	s := snapshot(time.Now())
	s.Config.URL, s.Config.Rings[0].Rotate, s.Keys[0].JWK.Kid = evil, evil, evil
	f.Accept("main", s)
	page := f.status("/").Body.String()
	if strings.Contains(page, "<script") {
		t.Error("the page holds a script")
	}
	if n := strings.Count(page, "&lt;script&gt;"); n < 10 {
		t.Errorf("the page shows %d of what was put in", n)
	}
	if !strings.Contains(page, "Why it cannot sign") {
		t.Error("the page does not say why it cannot sign")
	}
}

func TestStatusPageBeforeTheFirstSnapshot(t *testing.T) {
	w := newFixture(t, nil).status("/")
	if w.Code != 200 || !strings.Contains(w.Body.String(), CodeNoSet) || !strings.Contains(w.Body.String(), "none in this process") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
