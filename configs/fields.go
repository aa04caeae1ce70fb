package configs

import "maps"

// notBuilt names the fields of the design whose part this build does not have,
// by path. To accept one and ignore it would be a security hole: its author
// believes that it holds.
var notBuilt = map[string]string{
	"issuers[].publish[].bucket":            "publishing to object stores; publish a file and copy it, or serve http",
	"vault.auth.role":                       "logging in by kubernetes, jwt or cert; use approle, token_file or token",
	"vault.auth.jwt_file":                   "logging in by kubernetes or jwt; use approle, token_file or token",
	"vault.auth.service_account_token_file": "logging in by kubernetes; use approle, token_file or token",
	"vault.auth.cert_file":                  "logging in by cert; use approle, token_file or token",
	"vault.auth.key_file":                   "logging in by cert; use approle, token_file or token",
	"vault.transit_mount":                   "keys inside Vault's Transit; use custody vaultkv",
	"transit":                               "keys inside Vault's Transit; use custody vaultkv",
}

// refused names fields that will never be, by path, and what to write instead.
var refused = map[string]string{
	"vault.token":              secretInline + "leave the token in VAULT_TOKEN (vault.auth.method: token), or name a file (token_file)",
	"vault.auth.token":         secretInline + "leave the token in VAULT_TOKEN (method: token), or name a file (method: token_file)",
	"vault.auth.secret_id":     secretInline + "name a file in secret_id_file",
	"vault.auth.role_id":       "name a file in role_id_file",
	"vault.tls_skip_verify":    "certificates are always verified: name the authority's in ca_cert_file",
	"vault.insecure":           "certificates are always verified: name the authority's in ca_cert_file",
	"local.key":                secretInline + "name a file in key_file",
	"listen.public.tls.key":    secretInline + "name a file in key_file",
	"audit.chain":              "records are chained always: take it out",
	"profiles[].rate_limit":    "write rate: {per_second: 50, burst: 100}",
	"listen.sign[].rate_limit": "write rate: {per_second: 50, burst: 100} under the profiles",
	"limits":                   "write connections_per_user under listen.sign, and rate under the profiles",
}

const secretInline = "a secret never stands in this file: "

// notBuiltValues are values of known fields whose part this build does not have.
var notBuiltValues = map[string]map[string]string{
	"rings[].custody": {"transit": "keys inside Vault's Transit; use vaultkv"},
	"vault.auth.method": {
		"kubernetes": "logging in by kubernetes; use approle, token_file or token",
		"jwt":        "logging in by jwt; use approle, token_file or token",
		"cert":       "logging in by cert; use approle, token_file or token",
	},
}

// refusals says of fields that Config does not have why that is so, by path.
func refusals() map[string]string {
	why := maps.Clone(refused)
	for path, part := range notBuilt {
		why[path] = "not built yet: " + part + "; take it out"
	}
	return why
}
