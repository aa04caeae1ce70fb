package deploytest

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/custody/vaultkv"
)

var update = flag.Bool("update", false, "write the Vault policies that the code derives")

// TestVaultPolicies: what an operator gives the roles is what the custody asks
// for, on the mount that the other files under deploy name.
func TestVaultPolicies(t *testing.T) {
	for name, roles := range map[string][]string{
		"rotator.hcl":   {vaultkv.RoleRotator},
		"signer.hcl":    {vaultkv.RoleSigner},
		"publisher.hcl": {vaultkv.RolePublisher},
		"all.hcl":       nil,
	} {
		want, err := vaultkv.Policy(load(t, "deploy/systemd/keyturn.yaml").Vault.Mount, nil, roles...)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("deploy/vault", name)
		if *update {
			if err := os.WriteFile(filepath.Join(root, file), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, read(t, file)); diff != "" {
			t.Errorf("%s is not what the code derives; go test ./cmd/keyturn/internal/deploytest -update writes it: -want +got\n%s", file, diff)
		}
	}
}
