package vaultsession

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	withheld = "[withheld: it repeats the request]"
	// shortest is the length from which on a string can be a secret; shorter
	// ones stand in messages by chance.
	shortest = 8
)

// secrets is what of a request no error may repeat: Vault, or what answers in
// its place, may put into a message what it was sent.
type secrets []string

// secretsOf are the token, and of a PUT every string that the body holds: a
// deposit carries a private half, a login a secret id. Each line counts by
// itself, since an echo may be indented or encoded.
func secretsOf(token string, req Request) secrets {
	s := secrets{"PRIVATE KEY"}.with(token)
	if req.Method != "PUT" {
		return s
	}
	doc, err := json.Marshal(req.Body)
	if err != nil {
		return s // then it is not sent either
	}
	var body any
	if err := json.Unmarshal(doc, &body); err != nil {
		return s
	}
	return s.withAll(body)
}

func (s secrets) withAll(v any) secrets {
	switch v := v.(type) {
	case string:
		return s.with(v)
	case []any:
		for _, item := range v {
			s = s.withAll(item)
		}
	case map[string]any:
		for _, item := range v {
			s = s.withAll(item)
		}
	}
	return s
}

func (s secrets) with(value string) secrets {
	for line := range strings.Lines(value) {
		line = strings.TrimSpace(line)
		if len(line) < shortest {
			continue
		}
		s = append(s, line)
		// As it stands within JSON, where that is another spelling.
		if quoted, err := json.Marshal(line); err == nil && string(quoted[1:len(quoted)-1]) != line {
			s = append(s, string(quoted[1:len(quoted)-1]))
		}
	}
	return s
}

func (s secrets) in(text string) bool {
	for _, secret := range s {
		if strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// withheld returns the messages, each one that repeats a secret replaced.
func (s secrets) withheld(messages []string) []string {
	out := make([]string, len(messages))
	for i, m := range messages {
		out[i] = m
		if s.in(m) {
			out[i] = withheld
		}
	}
	return out
}

// withheldCause replaces an error that repeats a secret, such as that of an
// answer which is no HTTP, and keeps what callers ask of it.
func (s secrets) withheldCause(err error) error {
	if err == nil || !s.in(err.Error()) {
		return err
	}
	for _, kind := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, kind) {
			return fmt.Errorf("%w: %s", kind, withheld)
		}
	}
	return errors.New(withheld)
}
