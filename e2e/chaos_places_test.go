package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// place is where consumers find the set: the endpoint or the file of a replica.
type place struct {
	name    string
	replica *replica
	file    bool
	client  *http.Client
	sets    *setShelf

	mu     sync.Mutex
	copies []fetchedCopy // the oldest first
	newest uint64        // generation
	lost   string        // why the last fetch failed, "" if it did not
}

// fetchedCopy is a set that a consumer has. It left the place between two
// instants.
type fetchedCopy struct {
	start, end time.Time
	generation uint64 // 0 where nothing says it
	set        *keptSet
}

// keptSet is a set as the consumers' libraries read it.
type keptSet struct {
	digest string
	jose   jose.JSONWebKeySet
	kids   []string // sorted
}

// setShelf parses each set once, and remembers when it was seen first under
// which generation.
type setShelf struct {
	mu    sync.Mutex
	sets  map[string]*keptSet
	shown map[uint64]map[string]*showing
}

// showing is a set that was seen under a generation.
type showing struct {
	place string
	first time.Time // when its first fetch had ended
	set   *keptSet
}

func newSetShelf() *setShelf {
	return &setShelf{sets: map[string]*keptSet{}, shown: map[uint64]map[string]*showing{}}
}

func (s *setShelf) keep(body []byte) (*keptSet, error) {
	sum := sha256.Sum256(body)
	digest := hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.sets[digest]; k != nil {
		return k, nil
	}
	k := &keptSet{digest: digest}
	if err := json.Unmarshal(body, &k.jose); err != nil {
		return nil, err
	}
	for _, key := range k.jose.Keys {
		k.kids = append(k.kids, key.KeyID)
	}
	slices.Sort(k.kids)
	if len(k.kids) == 0 || len(slices.Compact(slices.Clone(k.kids))) != len(k.kids) {
		return nil, fmt.Errorf("keys %v", k.kids)
	}
	s.sets[digest] = k
	return k, nil
}

func (s *setShelf) show(place string, c fetchedCopy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown[c.generation] == nil {
		s.shown[c.generation] = map[string]*showing{}
	}
	if s.shown[c.generation][c.set.digest] == nil {
		s.shown[c.generation][c.set.digest] = &showing{place, c.end, c.set}
	}
}

// fetch is one fetch, as a consumer makes it.
func (p *place) fetch() (body []byte, generation uint64, err error) {
	if p.file {
		return p.readFile()
	}
	resp, err := p.client.Get("http://" + p.replica.public + "/.well-known/jwks.json")
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	generation, err = strconv.ParseUint(resp.Header.Get("Keyturn-Generation"), 10, 64)
	return body, generation, err
}

// errEdited: the file is not one that keyturn wrote.
var errEdited = errors.New("the side file does not list these bytes")

// readFile reads the file; the side file that belongs to it tells its generation.
func (p *place) readFile() ([]byte, uint64, error) {
	for try := 0; ; try++ {
		body, err := os.ReadFile(p.replica.path("www/jwks.json"))
		if err != nil {
			return nil, 0, err
		}
		generation, err := p.generationOf(body)
		if err == nil || try == 3 {
			return body, generation, err
		}
		time.Sleep(2 * time.Millisecond) // both may have been replaced meanwhile
	}
}

func (p *place) generationOf(body []byte) (uint64, error) {
	doc, err := os.ReadFile(p.replica.path("www/jwks.json.keyturn"))
	if err != nil {
		return 0, err
	}
	var side struct {
		Sets []struct {
			Generation uint64
			SHA256     string
		}
	}
	if err := json.Unmarshal(doc, &side); err != nil {
		return 0, err
	}
	sum := sha256.Sum256(body)
	for _, s := range slices.Backward(side.Sets) {
		if s.SHA256 == hex.EncodeToString(sum[:]) {
			return s.Generation, nil
		}
	}
	return 0, errEdited
}

// poll fetches again and again, as long as consumers would come here.
func (c *chaos) poll(p *place) {
	for c.pause(100 * time.Millisecond) {
		if p.file && !p.replica.health.inService(time.Now()) {
			c.outOfService(p)
			continue
		}
		start := time.Now()
		body, generation, err := p.fetch()
		end := time.Now()
		switch {
		case err == nil:
			c.fetched(p, start, end, body, generation)
		case errors.Is(err, errEdited) && c.weather.touches(noFile, p.replica.index, start, end, 0):
			c.ledger.count("fetches of a file that somebody else edited")
		default:
			c.notFetched(p, start, end, err)
		}
	}
}

func (c *chaos) fetched(p *place, start, end time.Time, body []byte, generation uint64) {
	set, err := p.sets.keep(body)
	if err != nil {
		c.ledger.fail("bad set", "%s: %v in %s", p.name, err, body)
		return
	}
	c.ledger.count("fetches")
	got := fetchedCopy{start, end, generation, set}
	p.sets.show(p.name, got)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost != "" {
		c.ledger.note("%s serves again, generation %d", p.name, generation)
	}
	p.lost = ""
	if generation < p.newest { // I9
		c.ledger.fail("generation fell", "%s: from %d to %d", p.name, p.newest, generation)
	}
	p.newest = max(p.newest, generation)
	p.copies = append(p.copies, got)
	if old := len(p.copies) - 400; old > 200 { // consumers need some ten seconds
		p.copies = slices.Clone(p.copies[old:])
	}
}

// notFetched is no pass: a place that should serve and does not is a failure.
func (c *chaos) notFetched(p *place, start, end time.Time, err error) {
	excused := c.weather.mayNotServe(p.replica.index, start, end, p.replica.now().tail())
	if p.file {
		excused = excused || c.weather.touches(noFile, p.replica.index, start, end, 0)
	}
	p.mu.Lock()
	began := p.lost == ""
	p.lost = err.Error()
	p.mu.Unlock()
	if began {
		c.ledger.note("%s does not serve (excused: %v): %v", p.name, excused, err)
	}
	if excused {
		c.ledger.count("fetches that failed, excused by a fault")
		return
	}
	c.ledger.count("fetches that failed, unexcused")
	c.ledger.fail("not served", "%s: %v", p.name, err)
}

// outOfService: the host says itself that it is not ready, or has been dead for
// as long as a load balancer may need to notice.
func (c *chaos) outOfService(p *place) {
	now := time.Now()
	if c.weather.mayNotServe(p.replica.index, now, now, p.replica.now().tail()) || c.weather.touches(noFile, p.replica.index, now, now, 0) {
		c.ledger.count("fetches of a file not tried, its host being out of service")
		return
	}
	c.ledger.fail("not ready", "%s: the host says that it is not ready", p.name)
}

// check asks a replica again and again whether it is ready.
func (c *chaos) check(r *replica) {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for c.pause(100 * time.Millisecond) {
		asked := time.Now()
		resp, err := client.Get("http://" + r.status + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
		}
		r.health.saw(asked, err == nil && resp.StatusCode == http.StatusOK)
	}
}

// between are the copies that left the place after one instant and were there
// before another.
func (p *place) between(from, to time.Time) []fetchedCopy {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := len(p.copies)
	for first > 0 && !p.copies[first-1].start.Before(from) {
		first--
	}
	last := len(p.copies)
	for last > first && p.copies[last-1].end.After(to) {
		last--
	}
	return slices.Clone(p.copies[first:last])
}
