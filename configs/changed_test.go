package configs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/configs/strictyaml"
)

// What differs is told by the names that stand in the file.
func TestChanged(t *testing.T) {
	before, _, err := loadText(t, minimal, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(text string) string
		want   []string
	}{
		"nothing": {func(text string) string { return "# a comment\n" + text }, nil},
		"values": {func(text string) string {
			text = edit(t, text, "revision: 1", "revision: 2\n    leeway: 30s")
			text = edit(t, text, "audit: {", "log: {level: debug}\nwatch: false\naudit: {required: false, ")
			return edit(t, text, "uid: 0", "uid: 7")
		}, []string{"audit.required", "issuers[0].leeway", "issuers[0].revision", "log.level", "profiles[0].allow[0].uid", "watch"}},
		"lists": {func(text string) string {
			text = edit(t, text, "[{name: file, file: /srv/jwks.json}]", "[{name: file, file: /srv/jwks.json}, {name: more, file: /srv/more.json}]")
			return edit(t, text, "audiences: [a]", "audiences: [b]")
		}, []string{"issuers[0].publish", "profiles[0].audiences"}},
	} {
		after, _, err := loadText(t, tc.change(minimal), Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tc.want, before.Changed(after)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	// A secret is compared and not shown.
	a, b := &Config{}, &Config{}
	a.Vault.Auth.Token, b.Vault.Auth.Token = strictyaml.NewSecret("one"), strictyaml.NewSecret("two")
	if got := strings.Join(a.Changed(b), " "); got != "vault.auth.token" {
		t.Errorf("changed: %s", got)
	}
}
