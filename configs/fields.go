package configs

import (
	"reflect"
	"slices"
	"strings"
)

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

// fieldsOf lists the YAML fields of a struct type.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "-" && name != "" {
			fields[name] = f.Type
		}
	}
	return fields
}

// hint says what an unknown field may have been meant to be: another spelling,
// or a field that belongs elsewhere.
func hint(name string, fields map[string]reflect.Type, path string) string {
	var names []string
	for known := range fields {
		names = append(names, known)
	}
	slices.Sort(names)
	if near := nearest(name, names); near != "" {
		return ": is it " + near + "?"
	}
	if homes := homesOf(name, reflect.TypeFor[Config](), ""); len(homes) > 0 {
		return ": it belongs " + strings.Join(homes, " or ")
	}
	if path == "" {
		return ": the fields here are " + strings.Join(names, ", ")
	}
	return ": the fields of " + path + " are " + strings.Join(names, ", ")
}

// homesOf lists the places that have a field of that name.
func homesOf(name string, t reflect.Type, path string) []string {
	switch t.Kind() {
	case reflect.Pointer:
		return homesOf(name, t.Elem(), path)
	case reflect.Slice:
		return homesOf(name, t.Elem(), path+"[]")
	case reflect.Struct:
	default:
		return nil
	}
	var homes []string
	for i := range t.NumField() {
		known, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if known == name && path == "" {
			homes = append(homes, "at the top of the file")
		} else if known == name {
			homes = append(homes, "under "+path)
		}
		homes = append(homes, homesOf(name, t.Field(i).Type, strings.TrimPrefix(path+"."+known, "."))...)
	}
	return homes
}

// nearest is the candidate within two edits of a name, or of its lower case;
// "" where none is that close.
func nearest(name string, candidates []string) string {
	best, least := "", 3
	for _, c := range candidates {
		if d := edits(strings.ToLower(name), c); d < least && d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance, given up at three for names of very
// different length.
func edits(a, b string) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
