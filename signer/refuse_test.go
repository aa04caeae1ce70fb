package signer

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/request"
)

// refusals is every way in which a request for the profile "orders" is refused.
var refusals = map[string]struct {
	body string
	code api.Code
	want string
}{
	"not JSON":            {`hello`, api.InvalidRequest, "not valid JSON"},
	"empty":               {``, api.InvalidRequest, "empty document"},
	"array":               {`[]`, api.InvalidRequest, ""},
	"null":                {`null`, api.InvalidRequest, "profile is missing"},
	"trailing data":       {`{"profile":"orders"} {}`, api.InvalidRequest, "data after"},
	"duplicate name":      {`{"profile":"orders","profile":"x"}`, api.InvalidRequest, "appears twice"},
	"duplicate claim":     {`{"profile":"orders","claims":{"scope":1,"scope":2}}`, api.InvalidRequest, "appears twice"},
	"duplicate deep":      {`{"profile":"orders","claims":{"scope":{"a":1,"a":2}}}`, api.InvalidRequest, "appears twice"},
	"case twin":           {`{"profile":"orders","Profile":"x"}`, api.InvalidRequest, "unknown member"},
	"unknown member":      {`{"profile":"orders","ttl":1}`, api.InvalidRequest, `"/ttl"`},
	"bad UTF-8":           {"{\"profile\":\"orders\xff\"}", api.InvalidRequest, "not valid JSON"},
	"lone surrogate":      {`{"profile":"orders","subject":"\ud800"}`, api.InvalidRequest, "not valid JSON"},
	"too deep":            {`{"profile":"orders","claims":{"scope":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}}`, api.InvalidRequest, "nests deeper"},
	"no profile":          {`{"subject":"user-1"}`, api.InvalidRequest, "profile is missing"},
	"unknown profile":     {`{"profile":"nope"}`, api.Forbidden, ""},
	"other's profile":     {`{"profile":"root"}`, api.Forbidden, ""},
	"no subject":          {`{"profile":"orders"}`, api.InvalidRequest, "subject is missing"},
	"subject":             {`{"profile":"orders","subject":"user-x"}`, api.InvalidRequest, "pattern"},
	"subject half":        {`{"profile":"orders","subject":"user-1; root"}`, api.InvalidRequest, "pattern"},
	"subject line":        {`{"profile":"orders","subject":"user-1\n"}`, api.InvalidRequest, "pattern"},
	"subject first":       {`{"profile":"orders","subject":"x\nuser-1"}`, api.InvalidRequest, "pattern"},
	"subject long":        {`{"profile":"orders","subject":"user-` + strings.Repeat("1", 2000) + `"}`, api.InvalidRequest, "at most 1024"},
	"subject a number":    {`{"profile":"orders","subject":1}`, api.InvalidRequest, "/subject"},
	"audience":            {`{"profile":"orders","subject":"user-1","audience":"x"}`, api.InvalidRequest, `choose from "api://orders"`},
	"audience second":     {`{"profile":"orders","subject":"user-1","audience":["api://orders","x"]}`, api.InvalidRequest, `"x"`},
	"audience empty":      {`{"profile":"orders","subject":"user-1","audience":""}`, api.InvalidRequest, "audience is empty"},
	"audience null":       {`{"profile":"orders","subject":"user-1","audience":[null]}`, api.InvalidRequest, "audience is empty"},
	"null profile":        {`{"profile":null}`, api.InvalidRequest, `"profile" cannot be null; leave it out`},
	"null subject":        {`{"profile":"fixed","subject":null}`, api.InvalidRequest, `"subject" cannot be null`},
	"null audience":       {`{"profile":"fixed","audience":null}`, api.InvalidRequest, `"audience" cannot be null`},
	"null ttl":            {`{"profile":"fixed","ttl_seconds": null }`, api.InvalidRequest, `"ttl_seconds" cannot be null`},
	"null claims":         {`{"profile":"fixed","claims":null}`, api.InvalidRequest, `"claims" cannot be null`},
	"claim in a claim":    {`{"profile":"p-ES256","subject":"u","claims":{"ctx":{"a":[{"role":1,"Role":2}]}}}`, api.InvalidRequest, "differ in case only"},
	"claim's huge number": {`{"profile":"p-ES256","subject":"u","claims":{"n":[1e400]}}`, api.InvalidRequest, "beyond a double"},
	"claim without name":  {`{"profile":"p-ES256","subject":"u","claims":{"":1}}`, api.ClaimForbidden, "needs a name"},
	"audience twice":      {`{"profile":"orders","subject":"user-1","audience":["api://orders","api://orders"]}`, api.InvalidRequest, "twice"},
	"audience star":       {`{"profile":"p-ES256","subject":"user-1","audience":"*"}`, api.InvalidRequest, `"*"`},
	"audience long":       {`{"profile":"p-ES256","subject":"user-1","audience":"` + strings.Repeat("x", 2000) + `"}`, api.InvalidRequest, "2000 bytes"},
	"audiences many":      {`{"profile":"p-ES256","subject":"user-1","audience":["` + strings.Repeat(`x","`, 200) + `"]}`, api.InvalidRequest, "at most 100"},
	"audience a number":   {`{"profile":"orders","subject":"user-1","audience":[1]}`, api.InvalidRequest, "/audience"},
	"which audience":      {`{"profile":"two","subject":"user-1"}`, api.InvalidRequest, `choose from "a", "b"`},
	"any audience":        {`{"profile":"any","subject":"user-1"}`, api.InvalidRequest, "name who the token is for"},
	"fixed subject":       {`{"profile":"fixed","subject":"root"}`, api.InvalidRequest, "set by the profile"},
	"peer's subject":      {`{"profile":"peer","subject":"uid:7"}`, api.InvalidRequest, "set by the profile"},
	"ttl zero":            {`{"profile":"orders","subject":"user-1","ttl_seconds":0}`, api.InvalidRequest, "at least 1"},
	"ttl negative":        {`{"profile":"orders","subject":"user-1","ttl_seconds":-1}`, api.InvalidRequest, "at least 1"},
	"ttl long":            {`{"profile":"orders","subject":"user-1","ttl_seconds":1801}`, api.TTLTooLong, "1800 at most"},
	"ttl overflows":       {`{"profile":"orders","subject":"user-1","ttl_seconds":9223372036854775807}`, api.TTLTooLong, "1800 at most"},
	"ttl huge":            {`{"profile":"orders","subject":"user-1","ttl_seconds":9223372036854775808}`, api.InvalidRequest, "/ttl_seconds"},
	"ttl a fraction":      {`{"profile":"orders","subject":"user-1","ttl_seconds":1.5}`, api.InvalidRequest, "/ttl_seconds"},
	"ttl a string":        {`{"profile":"orders","subject":"user-1","ttl_seconds":"60"}`, api.InvalidRequest, "/ttl_seconds"},
	"key's ttl":           {`{"profile":"short","subject":"user-1","ttl_seconds":61}`, api.TTLTooLong, "allows 60 at most"},
	"default over key":    {`{"profile":"short","subject":"user-1"}`, api.TTLTooLong, "allows 60 at most"},
	"claims an array":     {`{"profile":"orders","subject":"user-1","claims":[]}`, api.InvalidRequest, "/claims"},
	"claim not allowed":   {`{"profile":"orders","subject":"user-1","claims":{"tenant":"a","admin":true}}`, api.ClaimForbidden, `"admin"`},
	"claim in other case": {`{"profile":"orders","subject":"user-1","claims":{"Tenant":"a"}}`, api.ClaimForbidden, `"Tenant"`},
	"claim added":         {`{"profile":"orders","subject":"user-1","claims":{"tenant":"a","env":"dev"}}`, api.ClaimForbidden, "sets the claim"},
	"claim missing":       {`{"profile":"orders","subject":"user-1"}`, api.InvalidRequest, `requires the claim "tenant"`},
	"claim null":          {`{"profile":"orders","subject":"user-1","claims":{"tenant":null}}`, api.InvalidRequest, `requires the claim "tenant"`},
	"claim twins":         {`{"profile":"p-ES256","subject":"user-1","claims":{"scope":"a","SCOPE":"b"}}`, api.InvalidRequest, "differ in case only"},
	"claim with NUL":      {`{"profile":"p-ES256","subject":"u","claims":{"exp\u0000":1}}`, api.ClaimForbidden, "U+0000"},
	"claim with DEL":      {`{"profile":"p-ES256","subject":"u","claims":{"\u007fexp":1}}`, api.ClaimForbidden, "U+007F"},
	"claim with C1":       {`{"profile":"p-ES256","subject":"u","claims":{"e\u009bxp":1}}`, api.ClaimForbidden, "U+009B"},
	"claim with a line":   {`{"profile":"p-ES256","subject":"u","claims":{"exp\u2028":1}}`, api.ClaimForbidden, "U+2028"},
	"claim with bidi":     {`{"profile":"p-ES256","subject":"u","claims":{"\u202epxe":1}}`, api.ClaimForbidden, "U+202E"},
	"claim, zero width":   {`{"profile":"p-ES256","subject":"u","claims":{"ex\u200bp":1}}`, api.ClaimForbidden, "U+200B"},
	"subject with NUL":    {`{"profile":"p-ES256","subject":"root\u0000x"}`, api.InvalidRequest, "subject holds U+0000"},
	"subject with bidi":   {`{"profile":"p-ES256","subject":"\u2066x"}`, api.InvalidRequest, "subject holds U+2066"},
	"audience with NUL":   {`{"profile":"p-ES256","subject":"u","audience":"a\u0000"}`, api.InvalidRequest, "holds U+0000"},
	"audience with a C1":  {`{"profile":"p-ES256","subject":"u","audience":["a","b\u0085"]}`, api.InvalidRequest, "holds U+0085"},
	"client_id a number":  {`{"profile":"access","subject":"user-1","claims":{"client_id":1}}`, api.InvalidRequest, "RFC 9068"},
	"client_id empty":     {`{"profile":"access","subject":"user-1","claims":{"client_id":""}}`, api.InvalidRequest, "RFC 9068"},
	"no client_id":        {`{"profile":"access","subject":"user-1"}`, api.InvalidRequest, "client_id"},
}

// refusingWorld has the profiles that refusals names.
func refusingWorld(t testing.TB) *world {
	w := newWorld(t, keyring.ES256, keyring.ES384)
	w.Snap.Keys[1].MaxTTL = keyring.Duration(time.Minute) // the key caps what the profile allows
	orders := anybody("orders", "ES256")
	orders.Subject.Pattern = "^user-[0-9]+$"
	orders.Audiences = []string{"api://orders"}
	orders.Claims = profile.Claims{Allow: []string{"scope", "tenant"}, Require: []string{"tenant"}, Add: []request.Claim{{Name: "env", Value: json.RawMessage(`"prod"`)}}}
	orders.TTL = profile.TTL{Default: 5 * time.Minute, Max: 30 * time.Minute}
	root := anybody("root", "ES256")
	root.Allow = []profile.Rule{{UID: ptr(uint32(0))}}
	two, any, fixed, peer := anybody("two", "ES256"), anybody("any", "ES256"), anybody("fixed", "ES256"), anybody("peer", "ES256")
	two.Audiences = []string{"a", "b"}
	any.Audiences = []string{profile.AnyName}
	fixed.Subject = profile.Subject{Fixed: "service"}
	peer.Subject = profile.Subject{FromPeer: "uid:{uid}"}
	access := anybody("access", "ES256")
	access.Type, access.Claims.Require = "at+jwt", []string{"client_id"}
	w.cfg.Profiles = append(w.cfg.Profiles, orders, root, two, any, fixed, peer, access, anybody("short", "ES384"))
	return w
}

func TestRefusals(t *testing.T) {
	w := refusingWorld(t).start().ready()
	for name, tc := range refusals {
		t.Run(name, func(t *testing.T) {
			count := len(w.rec.all())
			resp, prob := w.ask(tc.body)
			if resp != nil || prob == nil || prob.Code != tc.code || !strings.Contains(prob.Detail, tc.want) {
				t.Fatalf("answer %+v, problem %v; want %s with %q", resp, prob, tc.code, tc.want)
			}
			if len(prob.Detail) > 1000 {
				t.Errorf("a detail of %d bytes", len(prob.Detail))
			}
			recs := w.rec.all()[count:]
			if len(recs) != 1 || recs[0].Decision != audit.Deny || recs[0].Code != string(tc.code) || recs[0].UID != 1000 || recs[0].JTI != "" || recs[0].Reason == "" {
				t.Errorf("records %+v, want one denial", recs)
			}
		})
	}
}
