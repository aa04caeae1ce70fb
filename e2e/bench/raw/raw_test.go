package raw

import (
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		res, err := Run(Config{Algorithm: alg, Bits: 2048, Input: 300, Duration: 20 * time.Millisecond})
		if err != nil || res.Signatures == 0 || res.CPU <= 0 || res.Rate() <= 0 {
			t.Errorf("%s: %+v, %v", alg, res, err)
		}
	}
	if _, err := Run(Config{Algorithm: "HS256"}); err == nil || !strings.Contains(err.Error(), "HS256") {
		t.Errorf("HS256: %v", err)
	}
}
