package e2e

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// loadOpenAPI reads docs/openapi.yaml, and wants it to be sound, examples included.
func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../docs/openapi.yaml")
	must(t, err)
	must(t, doc.Validate(t.Context()))
	return doc
}

// operations of the document, by METHOD /path.
func operations(doc *openapi3.T) map[string]*openapi3.Operation {
	out := map[string]*openapi3.Operation{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			out[method+" "+path] = op
		}
	}
	return out
}

// TestOpenAPIHasEveryRoute: what the servers route is documented under the tag
// of its socket, and nothing else is.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"GET /.well-known/jwks.json": "public", "GET /.well-known/openid-configuration": "public",
	}
	for tag, file := range map[string]string{"sign": "../signer/handler.go", "admin": "../admin/socket.go", "status": "../admin/status.go"} {
		src, err := os.ReadFile(file)
		must(t, err)
		routes := regexp.MustCompile(`mux\.Handle(?:Func)?\("(?:(GET|POST) )?(/[^"]*)", (?:only\(http\.Method(Get|Post))?`).FindAllStringSubmatch(string(src), -1)
		if len(routes) < 4 {
			t.Fatalf("only %d routes in %s: the pattern misses them", len(routes), file)
		}
		for _, r := range routes {
			method, path := strings.ToUpper(r[1]+r[3]), strings.ReplaceAll(r[2], "/{$}", "/")
			if method == "" && path == "/" { // what answers 404
				continue
			}
			want[method+" "+path] = tag
		}
	}
	got := map[string]string{}
	for name, op := range operations(loadOpenAPI(t)) {
		got[name] = strings.Join(op.Tags, ",")
	}
	for name, tag := range want {
		if got[name] != tag {
			t.Errorf("%s of the %s listener is documented as %q", name, tag, got[name])
		}
	}
	for name := range got {
		if want[name] == "" {
			t.Errorf("%s is documented, and routed nowhere", name)
		}
	}
}

// TestOpenAPIHasEveryCode: a client decides on codes.
func TestOpenAPIHasEveryCode(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("../api/problem.go")
	must(t, err)
	var want, got []string
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +Code = "([a-z_]+)"`).FindAllStringSubmatch(string(src), -1) {
		want = append(want, m[1])
	}
	for _, v := range loadOpenAPI(t).Components.Schemas["Code"].Value.Enum {
		got = append(got, v.(string))
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 15 || !slices.Equal(want, got) {
		t.Errorf("codes %q, documented %q", want, got)
	}
}

// TestOpenAPIHasEveryMember holds the schemas against the types of the wire.
func TestOpenAPIHasEveryMember(t *testing.T) {
	t.Parallel()
	schemas := loadOpenAPI(t).Components.Schemas
	checked := map[string]bool{
		// no types of package api: text, one document of the publisher, and an entry of a batch
		"Algorithm": true, "Code": true, "Discovery": true, "BatchError": true,
	}
	for _, v := range []any{
		api.SignRequest{}, api.SignResponse{}, api.BatchRequest{}, api.BatchResponse{}, api.Profiles{}, api.Profile{}, api.Rate{}, api.Subject{},
		api.Issuers{}, api.Replica{}, api.Reason{}, api.Issuer{}, api.Timing{}, api.Ring{}, api.Key{}, api.AdoptedKey{}, api.Target{},
		api.RotateRequest{}, api.RotateResponse{}, api.RevokeRequest{}, api.RevokeResponse{}, api.RevokedKey{}, api.Successor{},
		api.TargetExposure{}, api.CutOffExposure{}, api.ConsumerExposure{}, api.AcceptRequest{}, api.AcceptResponse{},
		api.Health{}, api.Problem{}, keyring.JWK{}, keyring.JWKSet{},
	} {
		typ := reflect.TypeOf(v)
		name := strings.ReplaceAll(typ.Name(), "JWKSet", "KeySet")
		checked[name] = true
		if schemas[name] == nil {
			t.Errorf("%s has no schema", name)
			continue
		}
		compareMembers(t, name, typ, schemas[name].Value)
	}
	for name := range schemas {
		if !checked[name] {
			t.Errorf("the schema %s is held against no type", name)
		}
	}
}

func compareMembers(t *testing.T, name string, typ reflect.Type, schema *openapi3.Schema) {
	t.Helper()
	request := strings.HasSuffix(name, "Request") // whose members are optional for other reasons
	var members []string
	for i := range typ.NumField() {
		member, option, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if member == "-" || !typ.Field(i).IsExported() {
			continue
		}
		members = append(members, member)
		if _, ok := schema.Properties[member]; !ok {
			t.Errorf("%s.%s is not documented", name, member)
		}
		if required := slices.Contains(schema.Required, member); !request && required != (option == "") {
			t.Errorf("%s.%s: required %v, written always %v", name, member, required, option == "")
		}
	}
	for member := range schema.Properties {
		if !slices.Contains(members, member) {
			t.Errorf("%s.%s is documented and does not exist", name, member)
		}
	}
	if request && schema.AdditionalProperties.Has == nil {
		t.Errorf("%s: unknown members are refused, so the schema has to say so", name)
	}
}
