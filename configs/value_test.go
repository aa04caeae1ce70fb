package configs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	day := 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"90d": 90 * day, "1w": 7 * day, "2w3d4h": 17*day + 4*time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "10s": 10 * time.Second,
		"500ms": 500 * time.Millisecond, "1.5h": 90 * time.Minute, "106751d": 106751 * day, "0d1s": time.Second,
	} {
		if got, err := ParseDuration(in); err != nil || time.Duration(got) != want {
			t.Errorf("ParseDuration(%q) = %s, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "5", "0", "0s", "0d", "-5s", "+5s", "1h-30m", "5 s", " 5s", "5S", "1.5d", "5d5d", "5d1w", "5h1d", "106752d", "15251w", "999999999w", "106751d24h",
		"99999999999999d", "9999999h", "d", "w", "d5", "1d-1s", "1d+1s", "1d0", "٣s",
	} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", in, got)
		}
	}
}

func TestDurationString(t *testing.T) {
	for in, want := range map[time.Duration]string{
		90 * 24 * time.Hour: "90d", 24 * time.Hour: "1d", 25 * time.Hour: "25h", time.Hour: "1h", 90 * time.Minute: "1h30m", 15 * time.Minute: "15m",
		10 * time.Minute: "10m", 10 * time.Second: "10s", 100 * time.Minute: "1h40m", 2500 * time.Millisecond: "2.5s", 0: "0s", time.Hour + time.Second: "1h0m1s",
	} {
		if got := Duration(in).String(); got != want {
			t.Errorf("String(%d) = %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Min(1).Draw(t, "duration"))
		if got, err := ParseDuration(d.String()); err != nil || got != d {
			t.Fatalf("ParseDuration(%q) = %s, %v", d, got, err)
		}
	})
}

// A configuration that holds a token shows it to nobody, whatever is done with it.
func TestSecretsAreRedacted(t *testing.T) {
	const canary = "hvs.canary"
	cfg := loadFile(t, "dev-vault.yaml")
	if cfg.Vault.Auth.Token.Reveal() != canary {
		t.Fatal("no token: the test shows nothing")
	}
	var out bytes.Buffer
	for _, v := range []any{cfg, *cfg, cfg.Vault, &cfg.Vault, cfg.Vault.Auth, cfg.Vault.Auth.Token, &cfg.Vault.Auth.Token} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		doc, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(doc)
		if doc, err = yaml.Marshal(v); err != nil {
			t.Fatal(err)
		}
		out.Write(doc)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("configuration", "value", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("configuration", "value", v)
	}
	// fmt calls no method of an unexported field.
	hidden := struct {
		auth  Auth
		token Secret
	}{cfg.Vault.Auth, cfg.Vault.Auth.Token}
	fmt.Fprintf(&out, "%v %+v %#v", hidden, hidden, hidden)
	for _, form := range []string{canary, fmt.Sprintf("%x", canary)} {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(form)) {
			t.Errorf("the token is shown as %s", form)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing is redacted: the test shows nothing")
	}
}

func TestRawJSON(t *testing.T) {
	for in, want := range map[string]string{
		"prod": `"prod"`, `"12"`: `"12"`, "12": "12", "1.50": "1.50", "123456789012345678901234567890": "123456789012345678901234567890",
		"true": "true", "null": "null", "yes": `"yes"`, "[1, a, {b: c, a: [x]}]": `[1,"a",{"b":"c","a":["x"]}]`,
		`"<&>é\u2028😀"`: `"<&>é\u2028😀"`, "{}": "{}", "[]": "[]", `"a\tb"`: `"a\tb"`,
	} {
		cfg, _, err := loadText(t, edit(t, minimal, "audiences: [a]", "audiences: [a]\n    claims: {add: [{name: x, value: "+in+"}]}"), Options{})
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := string(cfg.Profiles[0].Claims.Add[0].Value); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Whatever bytes come, the loader answers; and what it takes, it shows as the
// same configuration.
func FuzzParse(f *testing.F) {
	for _, text := range []string{minimal, minimalVault, devYAML, devVaultYAML, "", "[", "a: &a [*a]", "? [x]\n: y", "<<: {store: local}"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		o := Options{Environ: exampleEnv}
		cfg, _, err := parse(doc, "/etc/keyturn/keyturn.yaml", newOverlay(o), o)
		if err != nil {
			if strings.Contains(err.Error(), "hvs.canary") {
				t.Errorf("the error shows the token: %v", err)
			}
			return
		}
		shown, err := cfg.YAML()
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(shown), "    token: '[redacted]'\n", "", 1)
		again, _, err := parse([]byte(text), cfg.File, newOverlay(o), o)
		if err != nil {
			t.Fatalf("what is shown does not load: %v\n%s", err, shown)
		}
		if text2, err := again.YAML(); err != nil || !bytes.Equal(shown, text2) {
			t.Errorf("shown twice:\n%s\n%s\n%v", shown, text2, err)
		}
	})
}

func TestDate(t *testing.T) {
	for text, want := range map[string]struct {
		at    time.Time
		shown string
	}{
		"2027-03-01":                   {time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC), "2027-03-01"},
		"2027-03-01T12:30:00Z":         {time.Date(2027, 3, 1, 12, 30, 0, 0, time.UTC), "2027-03-01T12:30:00Z"},
		"2027-03-01T01:00:00+01:00":    {time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC), "2027-03-01"},
		"2027-03-01T12:30:00.25-05:00": {time.Date(2027, 3, 1, 17, 30, 0, 250e6, time.UTC), "2027-03-01T17:30:00.25Z"},
		"":                             {},
		"2027-3-1":                     {},
		"2027-03-01 12:30:00":          {},
		"2027-03-01T12:30:00":          {},
		"1999-12-31":                   {},
		"2027-02-29":                   {},
		" 2027-03-01":                  {},
	} {
		d, err := ParseDate(text)
		if (err == nil) != !want.at.IsZero() || !d.Time().Equal(want.at) {
			t.Errorf("ParseDate(%q) = %v, %v", text, d.Time(), err)
		}
		if err != nil {
			continue
		}
		if again, err := ParseDate(d.String()); d.String() != want.shown || err != nil || again != d {
			t.Errorf("%q is shown as %q, read back %v", text, d, err)
		}
	}
}

// What adopt_until says reaches the manifest, whether it is quoted or not, and
// config show prints it as a file may write it.
func TestAdoptUntilReachesTheManifest(t *testing.T) {
	want := time.Date(2099, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, text := range []string{"2099-03-01", `"2099-03-01"`, "2099-03-01T00:00:00Z"} {
		cfg, warnings, err := loadText(t, edit(t, minimal, "file: /srv/jwks.json", "file: /srv/jwks.json, adopt_until: "+text), Options{})
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%s: %v, %q", text, err, warnings)
		}
		if got := cfg.Issuers[0].Keyring(cfg).Targets[0].AdoptUntil; !got.Equal(want) {
			t.Errorf("%s: %v", text, got)
		}
		doc, err := yaml.Marshal(cfg)
		if err != nil || !strings.Contains(string(doc), `adopt_until: "2099-03-01"`) {
			t.Errorf("%s: shown as %v\n%s", text, err, doc)
		}
	}
}
