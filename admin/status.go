package admin

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
)

// refresh is how often the status page loads itself again, in seconds.
const refresh = 10

//go:embed status.html
var pageSource string

// StatusHandler answers probes, scrapes and people. It changes nothing and
// tells no secret, but it tells much: it belongs on loopback or inside a cluster.
func (a *Admin) StatusHandler() http.Handler {
	page := template.Must(template.New("status").Parse(pageSource)) // checked by every test of this handler
	metrics := a.cfg.Metrics.Handler()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", a.livez)
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.HandleFunc("GET /readyz/signer", a.readyzSigner)
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { a.page(w, page) })
	mux.HandleFunc("/", notFound)
	return mux
}

// pageData is what the status page shows.
type pageData struct {
	api.Issuers
	Refresh int
	Public  api.Health
	Signer  api.Health

	now time.Time
}

// When shows a time and how far away it is.
func (d pageData) When(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	at := t.UTC().Format("2006-01-02 15:04:05Z")
	switch away := t.Sub(d.now).Round(time.Second); {
	case away > 0:
		return at + " (in " + away.String() + ")"
	case away < 0:
		return at + " (" + (-away).String() + " ago)"
	}
	return at + " (now)"
}

// Span shows seconds as a duration.
func (d pageData) Span(seconds int64) string { return (time.Duration(seconds) * time.Second).String() }

func (a *Admin) page(w http.ResponseWriter, page *template.Template) {
	now := time.Now()
	h := a.judge(now)
	var body bytes.Buffer
	err := page.Execute(&body, pageData{Issuers: a.issuers(now), Refresh: refresh, Public: h.public, Signer: h.signer, now: now})
	if err != nil {
		a.cfg.Logger.Error("render status page", "error", err)
		api.NewProblem(api.Unavailable, "the page cannot be rendered; GET /readyz tells the reasons").WriteTo(w)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	// What targets and stores say ends up on this page: no script may run on it.
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write(body.Bytes()) // the client has gone: nobody to tell
}
