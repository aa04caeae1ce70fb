package configs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/configs/strictyaml"
	"go.yaml.in/yaml/v3"
)

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
		token strictyaml.Secret
	}{cfg.Vault.Auth, cfg.Vault.Auth.Token}
	fmt.Fprintf(&out, "%v %+v %#v", hidden, hidden, hidden)
	for _, form := range []string{canary, fmt.Sprintf("%x", canary)} {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(form)) {
			t.Errorf("the token is shown as %s", form)
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("nothing is redacted: the test shows nothing")
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
