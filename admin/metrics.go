package admin

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// Values of the label result.
const (
	resultOK    = "ok"
	resultError = "error"
)

// other stands for a label value that is not one of the known ones, so that
// nobody can make up series.
const other = "other"

// MetricsConfig is what NewMetrics takes.
type MetricsConfig struct {
	// Version and Revision (of the source) are shown by keyturn_build_info.
	Version, Revision string
	// Profiles are the names of the configured profiles; SetProfiles replaces them.
	Profiles []string
}

// Metrics counts what happens, in a registry of its own. Its methods may be
// called concurrently and never block.
type Metrics struct {
	registry *prometheus.Registry
	known    atomic.Pointer[known]

	signatures   *prometheus.CounterVec
	requests     *prometheus.CounterVec
	signing      *prometheus.HistogramVec
	rotations    *prometheus.CounterVec
	publications *prometheus.CounterVec
	drifts       *prometheus.CounterVec
	storeErrors  *prometheus.CounterVec
	events       map[keyring.EventKind]*prometheus.CounterVec // fixed keys: those of eventCounters
	conflicts    *prometheus.CounterVec
	refusals     *prometheus.CounterVec
	reloads      *prometheus.CounterVec
	reloaded     prometheus.Gauge
}

// NewMetrics makes the metrics of one daemon.
func NewMetrics(cfg MetricsConfig) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		registry:     prometheus.NewRegistry(),
		signatures:   counter("keyturn_signatures_total", "Tokens that were signed and released.", "profile", "algorithm"),
		requests:     counter("keyturn_sign_requests_total", "Requests for a token by their outcome: ok, or the problem's code.", "profile", "code"),
		rotations:    counter("keyturn_rotations_total", "Rotations that this process committed.", "issuer", "ring"),
		publications: counter("keyturn_publications_total", "Publications and read-backs of the key set.", "issuer", "target", "result"),
		drifts:       counter("keyturn_publication_drifts_total", "Times that a published file was found changed by somebody else.", "issuer", "target"),
		storeErrors:  counter("keyturn_store_errors_total", "Failed operations on the store of manifests and private halves.", "op", "cause"),
		events:       eventCounters(counter),
		conflicts:    counter("keyturn_conflicts_total", "Writes of the manifest that another replica's came before; they were planned again.", "issuer"),
		refusals:     counter("keyturn_connections_refused_total", "Connections that were refused since their user or address, or all, held as many as may be.", "listener"),
		reloads:      counter("keyturn_config_reloads_total", "Reloads of the configuration.", "result"),
		signing: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "keyturn_sign_duration_seconds",
			Help:    "Time from reading a request for a token to its answer, by the algorithm of the key; empty where no key was used.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1},
		}, []string{"algorithm"}),
		reloaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "keyturn_config_last_reload_successful", Help: "Whether the last load of the configuration succeeded.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "keyturn_build_info", Help: "The build that is running; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": cfg.Version, "revision": cfg.Revision, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.reloaded.Set(1) // a daemon that runs has loaded its configuration
	for _, result := range []string{resultOK, resultError} {
		m.reloads.WithLabelValues(result)
	}
	m.registry.MustRegister( // panics on a metric that is named twice, which is a defect of this func
		build, m.signatures, m.requests, m.signing, m.rotations, m.publications, m.drifts, m.storeErrors, m.conflicts, m.refusals, m.reloads, m.reloaded,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, c := range m.events {
		m.registry.MustRegister(c)
	}
	m.SetProfiles(cfg.Profiles)
	return m
}

// SetProfiles says which profiles exist. Series of others end.
func (m *Metrics) SetProfiles(names []string) {
	names = slices.Clone(names)
	before := m.known.Swap(&known{profiles: names})
	if before == nil {
		return
	}
	for _, name := range before.profiles {
		if !slices.Contains(names, name) {
			m.signatures.DeletePartialMatch(prometheus.Labels{"profile": name})
			m.requests.DeletePartialMatch(prometheus.Labels{"profile": name})
		}
	}
}

// tally is what a request for a token is counted under; values that nobody
// knows have been replaced by then.
type tally struct{ profile, algorithm, code string }

// counters are the series of a tally. Looking them up by their labels costs
// more than counting.
type counters struct {
	requests, signatures prometheus.Counter // signatures is nil where none was made
	signing              prometheus.Observer
}

// known is what Signed looks up: it is replaced as a whole when profiles change.
type known struct {
	profiles []string
	series   sync.Map // of *counters, by tally
}

// Signed counts a request for a token and how long it took. The code is "ok"
// for a token that was released, or the problem's. A profile that does not
// exist counts as "": callers may ask for any name.
func (m *Metrics) Signed(profile, algorithm, code string, d time.Duration) {
	k := m.known.Load()
	found, ok := k.series.Load(tally{profile, algorithm, code})
	if !ok {
		found = m.series(k, tally{profile, algorithm, code})
	}
	c := found.(*counters)
	c.requests.Inc()
	c.signing.Observe(d.Seconds())
	if c.signatures != nil {
		c.signatures.Inc()
	}
}

// series finds the counters of a tally, and keeps them where nobody can
// make up another of the kind.
func (m *Metrics) series(k *known, o tally) *counters {
	asked := o
	if !slices.Contains(k.profiles, o.profile) {
		o.profile = ""
	}
	if !slices.Contains(keyring.Algorithms(), keyring.Algorithm(o.algorithm)) {
		o.algorithm = ""
	}
	if !slices.Contains(signCodes(), o.code) {
		o.code = other
	}
	c := &counters{requests: m.requests.WithLabelValues(o.profile, o.code), signing: m.signing.WithLabelValues(o.algorithm)}
	if o.code == resultOK {
		c.signatures = m.signatures.WithLabelValues(o.profile, o.algorithm)
	}
	if o == asked {
		k.series.Store(o, c)
	}
	return c
}

func signCodes() []string {
	return []string{resultOK, string(api.InvalidRequest), string(api.TTLTooLong), string(api.ClaimForbidden), string(api.Forbidden),
		string(api.NotFound), string(api.TooLarge), string(api.RateLimited), string(api.NoActiveKey), string(api.SigningLapsed), string(api.Unavailable)}
}

// Published counts a publication or a read-back.
func (m *Metrics) Published(issuer, target string, ok bool) {
	m.publications.WithLabelValues(issuer, target, result(ok)).Inc()
}

// Drifted counts a published file that somebody else had changed.
func (m *Metrics) Drifted(issuer, target string) { m.drifts.WithLabelValues(issuer, target).Inc() }

// StoreError counts a failed operation by its cause. The op is one of a fixed set.
func (m *Metrics) StoreError(op string, err error) {
	m.storeErrors.WithLabelValues(op, cause(err)).Inc()
}

// Refusals starts the series of a listener and returns what counts a connection
// that was refused there.
func (m *Metrics) Refusals(listener string) (count func()) {
	return m.refusals.WithLabelValues(listener).Inc
}

// Reloaded counts a reload of the configuration.
func (m *Metrics) Reloaded(ok bool) {
	m.reloads.WithLabelValues(result(ok)).Inc()
	m.reloaded.Set(truth(ok))
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func result(ok bool) string {
	if ok {
		return resultOK
	}
	return resultError
}

func truth(v bool) float64 {
	if v {
		return 1
	}
	return 0
}

// cause names the fact that an error is about, one of a fixed set.
func cause(err error) string {
	for _, c := range []struct {
		fact error
		name string
	}{
		{context.DeadlineExceeded, "timeout"},
		{context.Canceled, "canceled"},
		{keyring.ErrDenied, "denied"},
		{keyring.ErrConflict, "conflict"},
		{keyring.ErrCorrupt, "corrupt"},
		{keyring.ErrSchema, "newer_schema"},
		{keyring.ErrNoManifest, "no_manifest"},
		{keyring.ErrNoKey, "no_key"},
		{keyring.ErrMismatch, "mismatch"},
		{keyring.ErrUnavailable, "unavailable"},
	} {
		if errors.Is(err, c.fact) {
			return c.name
		}
	}
	return other
}
