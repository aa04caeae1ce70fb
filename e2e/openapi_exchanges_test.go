package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/keyturn/keyturn/api"
)

// contract holds what a daemon answers against docs/openapi.yaml.
type contract struct {
	t      *testing.T
	doc    *openapi3.T
	router routers.Router
	// good and bad are the operations that answered with 200 and with less.
	good, bad map[string]bool
}

// newContract reads the document more strictly than clients may: members that
// it does not have are faults.
func newContract(t *testing.T) *contract {
	t.Helper()
	doc := loadOpenAPI(t)
	for _, schema := range doc.Components.Schemas {
		if s := schema.Value; s.Type.Is("object") && s.AdditionalProperties.Has == nil && s.AdditionalProperties.Schema == nil {
			s.AdditionalProperties.Has = new(bool)
		}
	}
	doc.Servers = nil // the host in a URL is not looked at
	router, err := gorillamux.NewRouter(doc)
	must(t, err)
	openapi3filter.RegisterBodyDecoder("application/jwk-set+json", openapi3filter.JSONBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.PlainBodyDecoder)
	return &contract{t: t, doc: doc, router: router, good: map[string]bool{}, bad: map[string]bool{}}
}

// exchange is a request to one of a daemon's listeners, and what has to come.
type exchange struct {
	listener, method, path, body string
	status                       int
	code                         api.Code
}

// ask makes the exchange. Requests that are answered with 200 have to be what
// the document says; answers always.
func (c *contract) ask(d *daemon, x exchange) []byte {
	c.t.Helper()
	name := fmt.Sprintf("%s: %s %s %.60s", x.listener, x.method, x.path, x.body)
	hc, base := http.DefaultClient, "http://keyturn"
	switch x.listener {
	case "sign":
		hc = overUnix(d.sign)
	case "admin":
		hc = overUnix(d.admin)
	case "public":
		base = "http://" + d.public
	case "status":
		base = "http://" + d.status
	}
	var req *http.Request
	var resp *http.Response
	var body []byte
	for range 100 { // a rate is used up only where nothing comes between two requests
		var err error
		req, err = http.NewRequestWithContext(c.t.Context(), x.method, base+x.path, strings.NewReader(x.body))
		must(c.t, err)
		resp, err = hc.Do(req)
		if err != nil {
			c.t.Fatalf("%s: %v", name, err)
		}
		body, err = io.ReadAll(resp.Body)
		must(c.t, errors.Join(err, resp.Body.Close()))
		if x.status != http.StatusTooManyRequests || resp.StatusCode == x.status {
			break
		}
	}
	if resp.StatusCode != x.status || x.code != "" && !strings.Contains(string(body), `"code":"`+string(x.code)+`"`) {
		c.t.Errorf("%s: %d %s, want %d %s", name, resp.StatusCode, body, x.status, x.code)
	}
	req.Body = io.NopCloser(strings.NewReader(x.body))
	if x.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	c.judge(name, x, req, resp, body)
	return body
}

func (c *contract) judge(name string, x exchange, req *http.Request, resp *http.Response, body []byte) {
	c.t.Helper()
	// Another method than the documented one is a bad request of that operation.
	routed := req.Clone(req.Context())
	if x.status == http.StatusMethodNotAllowed {
		routed.Method = map[string]string{"GET": "POST", "POST": "GET"}[x.method]
	}
	route, params, err := c.router.FindRoute(routed)
	if err != nil {
		c.t.Errorf("%s is not documented: %v", name, err)
		return
	}
	if !slices.Equal(route.Operation.Tags, []string{x.listener}) {
		c.t.Errorf("%s: documented under %q", name, route.Operation.Tags)
	}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route, Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	if resp.StatusCode == http.StatusOK {
		c.good[route.Operation.OperationID] = true
		if err := openapi3filter.ValidateRequest(c.t.Context(), in); err != nil {
			c.t.Errorf("%s: the daemon takes what the document refuses: %v", name, err)
		}
	} else {
		c.bad[route.Operation.OperationID] = true
	}
	err = openapi3filter.ValidateResponse(c.t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(body)), Options: in.Options,
	})
	if err != nil {
		c.t.Errorf("%s: answer %d %s: %v", name, resp.StatusCode, body, err)
	}
}

func (c *contract) askAll(d *daemon, list []exchange) {
	c.t.Helper()
	for _, x := range list {
		c.ask(d, x)
	}
}

// TestOpenAPI makes good and bad requests of every documented operation to a
// daemon, and to one whose Vault is away.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	mount := server.Unique("openapi")
	server.EnableKV(t, mount, 2, map[string]any{"cas_required": true})
	s := patient(t, server, mount)
	s.edit("audit: {", `  - name: strict
    ring: web
    typ: at+jwt
    allow: [{socket: default}]
    subject: {fixed: svc}
    audiences: [api]
    claims: {allow: [tenant], require: [tenant], add: [{name: client_id, value: svc}]}
  - {name: slow, ring: web, allow: [{socket: default}], subject: {fixed: svc}, audiences: [api], rate: {per_second: 1, burst: 1}}
  - {name: choosy, ring: web, allow: [{socket: default}], subject: {fixed: svc}, audiences: [api], claims: {allow: ["*"]}, when: "has(claims.please)"}
audit: {`)
	c, d := newContract(t), s.start("web")
	d.young("web")
	c.askAll(d, signExchanges())
	kid, ok := d.key("web", "active")
	if !ok {
		t.Fatal("no active key")
	}
	c.askAll(d, adminExchanges(kid.Kid))
	c.askAll(d, readers())
	s.put(func(string) string { return `{"schema":1,"lineage":` })
	d.frozen(kid.Kid)
	c.askAll(d, []exchange{
		{"admin", "GET", "/v1/issuers", "", 200, ""},
		{"status", "GET", "/readyz", "", 200, ""},
		{"admin", "POST", "/v1/issuers/main/accept", `{"dry_run":true}`, 200, ""},
		{"admin", "POST", "/v1/issuers/main/accept", `{"reason":"test"}`, 200, ""},
	})

	away := patient(t, server, mount)
	away.edit(server.URL(), "http://127.0.0.1:1").edit("{path: admin.sock}", "{path: admin.sock, allow: [{uid: 4242}]}")
	a := away.run()
	within(t, 20*time.Second, "listeners", func() error {
		_, _, err := a.health("/livez")
		return err
	})
	c.askAll(a, unavailable())

	for name, op := range operations(c.doc) {
		if !c.good[op.OperationID] {
			t.Errorf("%s was not asked for with success", name)
		}
		// These can say nothing else while a process answers at all.
		if !c.bad[op.OperationID] && !slices.Contains([]string{"livez", "metrics", "page"}, op.OperationID) {
			t.Errorf("%s was not asked for in vain", name)
		}
	}
}

func signExchanges() []exchange {
	web := `{"profile":"web","subject":"alice","audience":"demo"}`
	strict := `{"profile":"strict","audience":["api"],"ttl_seconds":3,"claims":{"tenant":"acme"}}`
	post := func(path, body string, status int, code api.Code) exchange {
		return exchange{"sign", "POST", path, body, status, code}
	}
	return []exchange{
		post("/v1/sign", web, 200, ""), post("/v1/sign", strict, 200, ""),
		post("/v1/sign", `{`, 400, api.InvalidRequest),
		post("/v1/sign", `{"profile":"web","colour":1}`, 400, api.InvalidRequest),
		post("/v1/sign", strings.Replace(strict, "3", "3600", 1), 400, api.TTLTooLong),
		post("/v1/sign", strings.Replace(strict, "tenant", "other", 1), 400, api.ClaimForbidden),
		post("/v1/sign", `{"profile":"none"}`, 403, api.Forbidden),
		post("/v1/sign", `{"profile":"choosy"}`, 403, api.Forbidden),
		post("/v1/sign", `{"profile":"choosy","claims":{"please":true}}`, 200, ""),
		post("/v1/sign", `{"profile":"slow"}`, 429, api.RateLimited),
		post("/v1/sign", `{"profile":"`+strings.Repeat("x", api.MaxSignBytes)+`"}`, 413, api.TooLarge),
		{"sign", "GET", "/v1/sign", "", 405, api.InvalidRequest},
		post("/v1/sign/batch", `{"requests":[`+web+`,`+strict+`]}`, 200, ""),
		post("/v1/sign/batch", `{"requests":[`+web+`,{"profile":"none"}]}`, 200, ""),
		post("/v1/sign/batch", `{}`, 400, api.InvalidRequest),
		post("/v1/sign/batch", `{"requests":[`+strings.Repeat("{},", api.MaxBatch)+`{}]}`, 413, api.TooLarge),
		{"sign", "GET", "/v1/sign/batch", "", 405, api.InvalidRequest},
		{"sign", "GET", "/v1/jwks", "", 200, ""},
		{"sign", "GET", "/v1/jwks?issuer=main", "", 200, ""},
		{"sign", "GET", "/v1/jwks?issuer=none", "", 404, api.NotFound},
		{"sign", "POST", "/v1/jwks", "", 405, api.InvalidRequest},
		{"sign", "GET", "/v1/profiles", "", 200, ""},
		{"sign", "POST", "/v1/profiles", "", 405, api.InvalidRequest},
	}
}

func adminExchanges(kid string) []exchange {
	post := func(path, body string, status int, code api.Code) exchange {
		return exchange{"admin", "POST", path, body, status, code}
	}
	return []exchange{
		{"admin", "GET", "/v1/issuers", "", 200, ""},
		post("/v1/rings/web/rotate", `{"dry_run":true,"force":true}`, 200, ""),
		post("/v1/rings/web/rotate", ``, 409, api.NotSafeYet),
		post("/v1/rings/none/rotate", `{"dry_run":true}`, 404, api.NotFound),
		post("/v1/rings/web/rotate", `{"too":"x"}`, 400, api.InvalidRequest),
		post("/v1/rings/web/rotate", `{"reason":"`+strings.Repeat("x", 20<<10)+`"}`, 413, api.TooLarge),
		post("/v1/keys/"+kid+"/revoke", `{"dry_run":true,"sign_now":true}`, 200, ""),
		post("/v1/keys/"+kid+"/revoke", `{}`, 400, api.InvalidRequest),
		post("/v1/keys/none/revoke", `{"dry_run":true}`, 404, api.NotFound),
		post("/v1/rings/web/revoke", `{"dry_run":true}`, 200, ""),
		post("/v1/rings/none/revoke", `{"dry_run":true}`, 404, api.NotFound),
		post("/v1/revoke", `{"kids":["`+kid+`"],"dry_run":true,"reason":"test"}`, 200, ""),
		post("/v1/revoke", `{"dry_run":true}`, 400, api.InvalidRequest),
		post("/v1/issuers/main/accept", `{}`, 409, api.NotFrozen),
		post("/v1/issuers/none/accept", `{}`, 404, api.NotFound),
	}
}

func readers() []exchange {
	return []exchange{
		{"public", "GET", "/.well-known/jwks.json", "", 200, ""},
		{"public", "POST", "/.well-known/jwks.json", "", 405, ""},
		{"public", "GET", "/.well-known/openid-configuration", "", 200, ""},
		{"public", "POST", "/.well-known/openid-configuration", "", 405, ""},
		{"status", "GET", "/livez", "", 200, ""},
		{"status", "GET", "/readyz", "", 200, ""},
		{"status", "GET", "/readyz/signer", "", 200, ""},
		{"status", "GET", "/metrics", "", 200, ""},
		{"status", "GET", "/", "", 200, ""},
	}
}

// unavailable is what a daemon answers whose Vault is away from the beginning,
// and whose operators are others.
func unavailable() []exchange {
	list := []exchange{
		{"sign", "POST", "/v1/sign", `{"profile":"web","subject":"alice","audience":"demo"}`, 503, api.Unavailable},
		{"sign", "POST", "/v1/sign/batch", `{"requests":[{"profile":"web","subject":"alice","audience":"demo"}]}`, 200, api.Unavailable},
		{"sign", "GET", "/v1/jwks", "", 503, api.Unavailable},
		{"sign", "GET", "/v1/profiles", "", 200, ""},
		{"public", "GET", "/.well-known/jwks.json", "", 503, ""},
		{"public", "GET", "/.well-known/openid-configuration", "", 503, ""},
		{"status", "GET", "/readyz", "", 503, ""},
		{"status", "GET", "/readyz/signer", "", 503, ""},
		{"admin", "GET", "/v1/issuers", "", 403, api.Forbidden},
	}
	for _, path := range []string{"/v1/rings/web/rotate", "/v1/keys/k/revoke", "/v1/rings/web/revoke", "/v1/revoke", "/v1/issuers/main/accept"} {
		list = append(list, exchange{"admin", "POST", path, `{"dry_run":true}`, 403, api.Forbidden})
	}
	return list
}

// TestNothingUndocumentedAnswers: what the document does not name is 404, on
// each of the listeners.
func TestNothingUndocumentedAnswers(t *testing.T) {
	t.Parallel()
	d := newSite(t).start("web")
	for listener, hc := range map[string]*http.Client{"sign": overUnix(d.sign), "admin": overUnix(d.admin), d.public: http.DefaultClient, d.status: http.DefaultClient} {
		for _, path := range []string{"/v1", "/v1/sign/", "/v1/keys", "/v1/export", "/v1/keys/k/private", "/v2/sign", "/debug/pprof/", "/healthz", "/v1/issuers/main"} {
			resp, err := hc.Get("http://" + strings.NewReplacer("sign", "keyturn", "admin", "keyturn").Replace(listener) + path)
			must(t, err)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s answers %s with %d", listener, path, resp.StatusCode)
			}
		}
	}
}
