package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/configs"
)

// FuzzJudge holds up, for whatever stands in a file: the parts judge also what
// the loader has refused, and none of them panics; what both take can be checked.
func FuzzJudge(f *testing.F) {
	f.Add([]byte(faulty))
	for _, file := range []string{"keyturn.yaml", "dev.yaml", "dev-vault.yaml"} {
		doc, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "configs", file))
		must(f, err)
		f.Add(doc)
	}
	for _, text := range []string{
		"store: local\nissuers: [{name: a, consumer_cache: -5s}]\nrings: [{name: '', issuer: a}, {name: '', issuer: b}]\nprofiles: [{name: x, ring: ''}]",
		"rings: [{name: a, issuer: a, rotate: '* * * * *', algorithm: RS256, rsa_bits: -1}]\nissuers: [{name: a, url: ':', clock_skew: 99999d}]",
		"profiles: [{when: 'claims.a.b.c == 1 && [1][0] == 1', rate: {per_second: -1}, claims: {add: [{name: a}]}}]",
	} {
		f.Add([]byte(text))
	}
	file := filepath.Join(f.TempDir(), "keyturn.yaml")
	o := configs.Options{Environ: []string{"KEYTURN_CONFIG=" + file, "CREDENTIALS_DIRECTORY=/run/credentials", "VAULT_TOKEN=canary"}, Judge: Judge}
	f.Fuzz(func(t *testing.T, doc []byte) {
		must(t, os.WriteFile(file, doc, 0o600))
		cfg, _, err := configs.Load(o)
		if (cfg == nil) == (err == nil) {
			t.Fatalf("Load = %v, %v", cfg, err)
		}
		if err == nil {
			if _, err := resolve(cfg); err != nil {
				t.Errorf("Load took it, and then: %v", err)
			}
		}
	})
}
