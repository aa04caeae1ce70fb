package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Duration is a time.Duration that JSON holds as Go writes it: "15m0s".
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Encode is the manifest as it is stored: one JSON document. Members that this
// code does not know, and Decode has seen, are written again.
func Encode(s *Snapshot) ([]byte, error) {
	if s.Schema != Schema {
		return nil, fmt.Errorf("schema %d, this keyturn writes %d: %w", s.Schema, Schema, ErrSchema)
	}
	doc, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return doc, nil
}

// Decode reads a stored manifest. ErrCorrupt wraps whatever makes it
// unreadable or contradictory. With ErrSchema the snapshot is returned as far
// as it could be read: it may be served, never written.
func Decode(doc []byte) (*Snapshot, error) {
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	s := new(Snapshot)
	err := json.Unmarshal(doc, s)
	switch {
	case head.Schema > Schema && err == nil && s.check() == nil:
		return s, fmt.Errorf("schema %d, this keyturn knows %d: %w", head.Schema, Schema, ErrSchema)
	case head.Schema > Schema:
		return nil, fmt.Errorf("schema %d, this keyturn knows %d: %w", head.Schema, Schema, ErrSchema)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return s, nil
}

// maxGeneration leaves room for those that follow: a write a nanosecond for a century.
const maxGeneration = 1 << 62

// check reports what no keyturn would have written.
func (s *Snapshot) check() error {
	var errs []error
	if s.Generation > maxGeneration || (s.Frozen != nil && s.Frozen.Generation > maxGeneration) {
		errs = append(errs, errors.New("a generation that no keyturn can have reached"))
	}
	if s.Schema < 1 || s.Lineage == "" || s.Generation == 0 || s.Config.Name == "" {
		errs = append(errs, errors.New("schema, lineage, generation or issuer is missing"))
	}
	seen := map[string]bool{}
	active := map[string]string{}
	for i := range s.Keys {
		k := &s.Keys[i]
		if _, err := k.JWK.PublicKey(); err != nil {
			errs = append(errs, err)
		}
		if seen[k.JWK.Kid] {
			errs = append(errs, fmt.Errorf("kid %q appears twice", k.JWK.Kid))
		}
		seen[k.JWK.Kid] = true
		if k.isActive() {
			if other := active[k.Ring]; other != "" {
				errs = append(errs, fmt.Errorf("ring %q has two active keys, %q and %q", k.Ring, other, k.JWK.Kid))
			}
			active[k.Ring] = k.JWK.Kid
		}
		if !k.Retired.IsZero() && k.SignUntil.IsZero() {
			errs = append(errs, fmt.Errorf("kid %q is retired without sign_until", k.JWK.Kid))
		}
		if !k.Closed.IsZero() && k.Retired.IsZero() && k.Revoked.IsZero() {
			errs = append(errs, fmt.Errorf("kid %q is closed and could still sign", k.JWK.Kid))
		}
	}
	return errors.Join(errs...)
}

// extra keeps the members of a stored object that this code does not know, so
// that a rewrite by an older replica does not drop what a newer one added.
type extra map[string]json.RawMessage

// decodeOpen fills v, a pointer to an alias of a struct type, and returns the
// members that the type does not have.
func decodeOpen(doc []byte, v any) (extra, error) {
	if err := json.Unmarshal(doc, v); err != nil {
		return nil, err
	}
	all := extra{}
	if err := json.Unmarshal(doc, &all); err != nil {
		return nil, err
	}
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" { // extra itself
			continue
		}
		delete(all, name)
		for other := range all {
			// encoding/json would take either for the member.
			if strings.EqualFold(name, other) {
				return nil, fmt.Errorf("member %q is not spelled %q", other, name)
			}
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

// encodeOpen writes v, an alias of a struct type, followed by the unknown
// members in the order of their names.
func encodeOpen(v any, more extra) ([]byte, error) {
	doc, err := json.Marshal(v)
	if err != nil || len(more) == 0 {
		return doc, err
	}
	names := make([]string, 0, len(more))
	for name := range more {
		names = append(names, name)
	}
	slices.Sort(names)
	out := bytes.NewBuffer(doc[:len(doc)-1]) // without the closing brace; no type here is empty
	for _, name := range names {
		quoted, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		out.WriteByte(',')
		out.Write(quoted)
		out.WriteByte(':')
		out.Write(more[name])
	}
	out.WriteByte('}')
	return out.Bytes(), nil
}

// The types of the manifest, each with its unknown members. The local aliases
// have the same members and no methods, so that encoding does not recurse.

type (
	snapshotJSON Snapshot
	frozenJSON   Frozen
	floorJSON    Floor
	adoptedJSON  Adopted
	orphanJSON   Orphan
	configJSON   Config
	targetJSON   Target
	ringJSON     Ring
	keyJSON      Key
)

func (s *Snapshot) UnmarshalJSON(d []byte) (err error) {
	s.extra, err = decodeOpen(d, (*snapshotJSON)(s))
	return
}
func (f *Frozen) UnmarshalJSON(d []byte) (err error) {
	f.extra, err = decodeOpen(d, (*frozenJSON)(f))
	return
}
func (f *Floor) UnmarshalJSON(d []byte) (err error) {
	f.extra, err = decodeOpen(d, (*floorJSON)(f))
	return
}
func (a *Adopted) UnmarshalJSON(d []byte) (err error) {
	a.extra, err = decodeOpen(d, (*adoptedJSON)(a))
	return
}
func (o *Orphan) UnmarshalJSON(d []byte) (err error) {
	o.extra, err = decodeOpen(d, (*orphanJSON)(o))
	return
}
func (c *Config) UnmarshalJSON(d []byte) (err error) {
	c.extra, err = decodeOpen(d, (*configJSON)(c))
	return
}
func (t *Target) UnmarshalJSON(d []byte) (err error) {
	t.extra, err = decodeOpen(d, (*targetJSON)(t))
	return
}
func (r *Ring) UnmarshalJSON(d []byte) (err error) {
	r.extra, err = decodeOpen(d, (*ringJSON)(r))
	return
}
func (k *Key) UnmarshalJSON(d []byte) (err error) {
	k.extra, err = decodeOpen(d, (*keyJSON)(k))
	return
}

func (s Snapshot) MarshalJSON() ([]byte, error) { return encodeOpen(snapshotJSON(s), s.extra) }
func (f Frozen) MarshalJSON() ([]byte, error)   { return encodeOpen(frozenJSON(f), f.extra) }
func (f Floor) MarshalJSON() ([]byte, error)    { return encodeOpen(floorJSON(f), f.extra) }
func (a Adopted) MarshalJSON() ([]byte, error)  { return encodeOpen(adoptedJSON(a), a.extra) }
func (o Orphan) MarshalJSON() ([]byte, error)   { return encodeOpen(orphanJSON(o), o.extra) }
func (c Config) MarshalJSON() ([]byte, error)   { return encodeOpen(configJSON(c), c.extra) }
func (t Target) MarshalJSON() ([]byte, error)   { return encodeOpen(targetJSON(t), t.extra) }
func (r Ring) MarshalJSON() ([]byte, error)     { return encodeOpen(ringJSON(r), r.extra) }
func (k Key) MarshalJSON() ([]byte, error)      { return encodeOpen(keyJSON(k), k.extra) }
