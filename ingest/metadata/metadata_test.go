package metadata

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const graphsyncHex = "9012a3685069656365434944d82a5828000181e203922020fc66377f35b3780a65368d0da3fe1862eff9fb36db1d416ce7b94c2e1062e80e6c56657269666965644465616cf56d4661737452657472696576616cf4"

const (
	bitswap   = "transport-bitswap"
	graphsync = "transport-graphsync-filecoinv1"
	gateway   = "transport-ipfs-gateway-http"
	piece     = "transport-filecoin-piece-http"
)

// What we make of each vector.
var parsed = map[string]struct {
	records   []string // hex
	rest      string   // hex
	protocols []string
}{
	"bitswap":                   {[]string{"8012"}, "", []string{bitswap}},
	"graphsync-filecoinv1":      {[]string{graphsyncHex}, "", []string{graphsync}},
	"ipfs-gateway-http":         {[]string{"a01200"}, "", []string{gateway}},
	"filecoin-piece-http":       {[]string{"b01200"}, "", []string{piece}},
	"unknown-code":              {[]string{"8080fc010568656c6c6f"}, "", []string{"Code(4128768)"}},
	"bitswap+gateway":           {[]string{"8012", "a01200"}, "", []string{bitswap, gateway}},
	"bitswap+graphsync":         {[]string{"8012", graphsyncHex}, "", []string{bitswap, graphsync}},
	"graphsync+gateway":         {[]string{graphsyncHex, "a01200"}, "", []string{graphsync, gateway}},
	"bitswap+gateway+piece":     {[]string{"8012", "a01200", "b01200"}, "", []string{bitswap, gateway, piece}},
	"bitswap+graphsync+gateway": {[]string{"8012", graphsyncHex, "a01200"}, "", []string{bitswap, graphsync, gateway}},
	"gateway+bitswap-unsorted":  {[]string{"a01200", "8012"}, "", []string{gateway, bitswap}},
	"gateway-without-length":    {[]string{"a012"}, "", []string{gateway}},
	"bitswap-with-zero-length":  {[]string{"8012"}, "00", []string{bitswap}},
	"unknown-truncated":         {nil, "8080fc010968656c6c6f", nil},
	"empty":                     {nil, "", nil},
}

func TestMetadataOfTheReference(t *testing.T) {
	b, err := os.ReadFile("testdata/metadata.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Vectors []struct{ Name, Hex, Base64 string }
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Vectors) != len(parsed) {
		t.Errorf("%d vectors, %d expectations", len(f.Vectors), len(parsed))
	}
	for _, v := range f.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			want, ok := parsed[v.Name]
			if !ok {
				t.Fatal("no expectation")
			}
			md := unhex(t, v.Hex)
			records, rest := Parse(md)
			var got []string
			for _, r := range records {
				got = append(got, hex.EncodeToString(r.Bytes))
			}
			if diff := cmp.Diff(want.records, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if hex.EncodeToString(rest) != want.rest {
				t.Errorf("rest %x, want %s", rest, want.rest)
			}
			if diff := cmp.Diff(want.protocols, Protocols(md), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("protocols (-want +got):\n%s", diff)
			}
			if len(md) == 0 {
				return
			}
			for _, text := range []string{v.Base64, strings.TrimRight(v.Base64, "=")} {
				if flag, err := ParseNames("base64:" + text); err != nil || !bytes.Equal(flag, md) {
					t.Errorf("ParseNames: %x, %v", flag, err)
				}
			}
		})
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseStopsAtWhatItCannotRead(t *testing.T) {
	for _, tt := range []struct {
		name, md string
		records  int
		rest     string
	}{
		{"code without end", "80", 0, "80"},
		{"code not in shortest form", "8000", 0, "8000"},
		{"code above 63 bits", "ffffffffffffffffff01", 0, "ffffffffffffffffff01"},
		{"length without end", "0180", 0, "0180"},
		{"length above 63 bits", "01ffffffffffffffffff01", 0, "01ffffffffffffffffff01"},
		{"gateway with payload", "a01202abcd8012", 2, ""},
		{"gateway without length before another", "a012b01200", 0, "a012b01200"},
		{"graphsync without map", "9012", 0, "9012"},
		{"graphsync not a map of three", "9012a2", 0, "9012a2"},
		{"graphsync cut", graphsyncHex[:len(graphsyncHex)-2], 0, graphsyncHex[:len(graphsyncHex)-2]},
		{"graphsync cut in the link", graphsyncHex[:40], 0, graphsyncHex[:40]},
		{"graphsync with a number for a bool", graphsyncHex[:len(graphsyncHex)-2] + "01", 0, graphsyncHex[:len(graphsyncHex)-2] + "01"},
		{"graphsync with a key twice", strings.Replace(graphsyncHex, "6d4661737452657472696576616c", "6c56657269666965644465616c", 1), 0,
			strings.Replace(graphsyncHex, "6d4661737452657472696576616c", "6c56657269666965644465616c", 1)},
		{"graphsync with bytes for a link", strings.Replace(graphsyncHex, "d82a", "", 1), 0, strings.Replace(graphsyncHex, "d82a", "", 1)},
		{"graphsync with a short link", "9012a3685069656365434944d82a4100" + "6c56657269666965644465616cf5" + "6d4661737452657472696576616cf4" + "8012", 2, ""},
		{"graphsync in another order", "9012a3" + "6c56657269666965644465616cf5" + "685069656365434944d82a4100" + "6d4661737452657472696576616cf4", 1, ""},
		{"graphsync with a link of unknown length", "9012a3685069656365434944d82a5f", 0, "9012a3685069656365434944d82a5f"},
		{"graphsync with a link without length", "9012a3685069656365434944d82a", 0, "9012a3685069656365434944d82a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			records, rest := Parse(unhex(t, tt.md))
			if len(records) != tt.records || hex.EncodeToString(rest) != tt.rest {
				t.Errorf("%d records, rest %x; want %d, %s", len(records), rest, tt.records, tt.rest)
			}
		})
	}
}

func TestProtocolsAreNamedOnce(t *testing.T) {
	got := Protocols(unhex(t, "80128012a01200"))
	if diff := cmp.Diff([]string{bitswap, gateway}, got); diff != "" {
		t.Error(diff)
	}
}

func TestEncode(t *testing.T) {
	for _, tt := range []struct {
		name  string
		codes []Code
		want  string
	}{
		{"none", nil, ""},
		{"bitswap", []Code{Bitswap}, "8012"},
		{"all, unsorted and repeated", []Code{FilecoinPieceHTTP, Bitswap, IPFSGatewayHTTP, Bitswap}, "8012a01200b01200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			given := append([]Code(nil), tt.codes...)
			md, err := Encode(tt.codes...)
			if err != nil || hex.EncodeToString(md) != tt.want {
				t.Errorf("%x, %v, want %s", md, err, tt.want)
			}
			if diff := cmp.Diff(given, tt.codes, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the caller's codes changed: %s", diff)
			}
		})
	}
	for _, code := range []Code{GraphsyncFilecoinV1, 0x1e0} {
		if md, err := Encode(Bitswap, code); err == nil {
			t.Errorf("%s: %x", code, md)
		}
	}
}

func TestParseNames(t *testing.T) {
	for _, tt := range []struct{ flag, want string }{
		{"bitswap", "8012"},
		{"transport-bitswap", "8012"},
		{"ipfs-gateway-http, bitswap", "8012a01200"},
		{"filecoin-piece-http", "b01200"},
		{"base64:gBKgEgA=", "8012a01200"},
		{"base64:gBKgEgA", "8012a01200"},
		{"base64:AQ", "01"},
	} {
		md, err := ParseNames(tt.flag)
		if err != nil || hex.EncodeToString(md) != tt.want {
			t.Errorf("%q: %x, %v, want %s", tt.flag, md, err, tt.want)
		}
	}
	for _, tt := range []struct{ flag, want string }{
		{"", `unknown protocol ""`},
		{"http", `unknown protocol "http"`},
		{"bitswap,", `unknown protocol ""`},
		{"graphsync-filecoinv1", "has parameters"},
		{"base64:", "0 bytes"},
		{"base64:!", "illegal base64"},
		{"base64:" + strings.Repeat("AAAA", 342), "1026 bytes"},
	} {
		if md, err := ParseNames(tt.flag); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %x, %v, want an error with %q", tt.flag, md, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range parsed {
		f.Add(unhex(f, strings.Join(v.records, "")+v.rest))
	}
	f.Fuzz(func(t *testing.T, md []byte) {
		records, rest := Parse(md)
		var joined []byte
		for _, r := range records {
			if len(r.Bytes) == 0 {
				t.Fatal("empty record")
			}
			again, left := Parse(r.Bytes)
			if len(again) != 1 || again[0].Code != r.Code || len(left) != 0 {
				t.Fatalf("record %x alone: %v, rest %x", r.Bytes, again, left)
			}
			joined = append(joined, r.Bytes...)
		}
		if !bytes.Equal(append(joined, rest...), md) {
			t.Fatalf("%x: parts do not add up", md)
		}
		Protocols(md)
	})
}
