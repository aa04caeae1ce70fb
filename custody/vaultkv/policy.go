package vaultkv

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/custody"
)

// The roles of a daemon, as they are configured.
const (
	RoleRotator   = "rotator"
	RoleSigner    = "signer"
	RolePublisher = "publisher"
)

// grant is a path below the mount and what may be done there. ISSUER stands
// for each issuer.
type grant struct {
	path, why    string
	capabilities []string
}

// settings lets Check see that the mount is as it must be.
var settings = grant{"config", "see that check-and-set is required", []string{"read"}}

// grants is the least with which each role works. In none of them may anybody
// delete a manifest, and a publisher cannot reach a private half.
func grants(role string) ([]grant, bool) {
	manifest := grant{"data/issuers/ISSUER/manifest", "the manifest", []string{"read"}}
	// Who keeps an audit log anchors it. It cannot delete what it anchored.
	heads := grant{"data/issuers/ISSUER/audit/+", "anchor the audit log; HOST in place of + binds it to that replica", []string{"create", "read", "update"}}
	switch role {
	case RoleRotator:
		return []grant{
			settings,
			{manifest.path, manifest.why, []string{"create", "read", "update"}},
			{"metadata/issuers/ISSUER/manifest", "its versions", []string{"read"}},
			// Without update a half cannot be replaced; read is for finding out
			// what became of a write, and that a half is gone.
			{"data/issuers/ISSUER/keys/+", "private halves", []string{"create", "read"}},
			{"destroy/issuers/ISSUER/keys/+", "destroy a half", []string{"update"}},
			{"metadata/issuers/ISSUER/keys/+", "take its last traces away", []string{"delete", "read"}},
			{"metadata/issuers/ISSUER/keys/", "find halves that nobody names", []string{"list"}},
			heads,
		}, true
	case RoleSigner:
		return []grant{settings, manifest, {"data/issuers/ISSUER/keys/+", "private halves", []string{"read"}}, heads}, true
	case RolePublisher:
		return []grant{settings, manifest}, true
	}
	return nil, false
}

// self is what a token needs to keep itself alive; it is in Vault's policy
// `default`, which a token may lack.
var self = []grant{
	{"auth/token/lookup-self", "how long the token lasts", []string{"read"}},
	{"auth/token/renew-self", "keep it alive", []string{"update"}},
	{"auth/token/revoke-self", "end it at shutdown", []string{"update"}},
}

// Policy is the least-privilege Vault policy, in HCL, of a daemon with these
// roles, all of them if none is named, for these issuers, all in the mount if
// none is named.
func Policy(mount string, issuers []string, roles ...string) (string, error) {
	mount = strings.Trim(mount, "/")
	if mount == "" || strings.ContainsAny(mount, "+*\"\\\n") {
		return "", fmt.Errorf("policy: mount %q", mount)
	}
	for _, issuer := range issuers {
		if err := custody.CheckIssuer(issuer); err != nil {
			return "", fmt.Errorf("policy: %w", err)
		}
	}
	if len(issuers) == 0 {
		issuers = []string{"+"} // one segment, whatever it is
	}
	if len(roles) == 0 {
		roles = []string{RoleRotator, RoleSigner, RolePublisher}
	}
	var paths []string // in the order of the first role that has them
	merged := map[string]grant{}
	add := func(path string, g grant) {
		old, ok := merged[path]
		if !ok {
			paths = append(paths, path)
			old = grant{why: g.why}
		}
		old.capabilities = append(slices.Clone(old.capabilities), g.capabilities...)
		slices.Sort(old.capabilities)
		old.capabilities = slices.Compact(old.capabilities)
		merged[path] = old
	}
	for _, role := range roles {
		list, ok := grants(role)
		if !ok {
			return "", fmt.Errorf("policy: role %q; use %s, %s or %s", role, RoleRotator, RoleSigner, RolePublisher)
		}
		for _, g := range list {
			for _, issuer := range issuers {
				add(mount+"/"+strings.Replace(g.path, "ISSUER", issuer, 1), g)
			}
		}
	}
	for _, g := range self {
		add(g.path, g)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# keyturn: %s. Generated; the roles need no more than this.\n", strings.Join(roles, ", "))
	for _, path := range paths {
		fmt.Fprintf(&out, "\n# %s\npath %q {\n  capabilities = [\"%s\"]\n}\n", merged[path].why, path, strings.Join(merged[path].capabilities, `", "`))
	}
	return out.String(), nil
}
