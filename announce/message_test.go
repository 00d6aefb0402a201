package announce

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	providerID  = "12D3KooWF2uBBKjGJA7LqUWjAcXcnwkAjXjBQDKFTafDkfgCUJDw"
	publisherID = "12D3KooWKEvyT7M7RiFGbjAedrZFHQsxzss2aJ3XGTxib8MW2AXP"
	someAd      = "baguqeera2ocl5mgh7zoitqrmfykahhhsgsgl7o53oluagt7ffqvaxxrazjiq"
)

type vector struct {
	Name     string
	CID      string
	Addrs    []string
	ExtraB64 []byte `json:"extra_data_b64"`
	OrigPeer string `json:"orig_peer"`
	CBORHex  string `json:"cbor_hex"`
	JSON     string
}

func vectors(t testing.TB) []vector {
	var file struct{ Vectors []vector }
	readVectors(t, "announce.json", &file)
	return file.Vectors
}

type negative struct {
	Name, Hex, Expect string
	Decode            string `json:"observed_decode_error"`
	Addrs             string `json:"observed_addrs_error"`
}

func negatives(t testing.TB) []negative {
	var file struct{ Vectors []negative }
	readVectors(t, "negative.json", &file)
	return file.Vectors
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addrStrings(addrs []multiaddr.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func mustAddrs(t testing.TB, texts ...string) []multiaddr.Multiaddr {
	t.Helper()
	var out []multiaddr.Multiaddr
	for _, text := range texts {
		a, err := multiaddr.NewMultiaddr(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func mustPeer(t testing.TB, text string) peer.ID {
	t.Helper()
	id, err := peer.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestVectorsDecodeAndEncodeToTheSameBytes(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.CBORHex)
			fromCBOR, err := DecodeCBOR(raw)
			if err != nil {
				t.Fatal(err)
			}
			fromJSON, err := DecodeJSON([]byte(v.JSON))
			if err != nil {
				t.Fatal(err)
			}
			for form, m := range map[string]*Message{"cbor": fromCBOR, "json": fromJSON} {
				got := vector{CID: m.Cid.String(), Addrs: addrStrings(m.Addrs), ExtraB64: m.ExtraData, OrigPeer: m.OrigPeer}
				want := vector{CID: v.CID, Addrs: v.Addrs, ExtraB64: v.ExtraB64, OrigPeer: v.OrigPeer}
				if len(want.ExtraB64) == 0 {
					want.ExtraB64 = nil
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", form, diff)
				}
			}
			if v.Name == "unknown-protocol-addr" {
				return // the skipped address is lost, by design
			}
			again, err := fromJSON.EncodeCBOR()
			if err != nil || !bytes.Equal(again, raw) {
				t.Errorf("cbor of what JSON said: %x, %v; want %x", again, err, raw)
			}
			text, err := fromCBOR.MarshalJSON()
			if err != nil || string(text) != v.JSON {
				t.Errorf("JSON of what cbor said: %s, %v; want %s", text, err, v.JSON)
			}
		})
	}
}

func TestNegativeVectorsAreRefused(t *testing.T) {
	for _, n := range negatives(t) {
		t.Run(n.Name, func(t *testing.T) {
			m, err := DecodeCBOR(unhex(t, n.Hex))
			if err == nil {
				_, err = m.Direct()
			}
			if n.Name == "announce-trailing-bytes" {
				if err != nil {
					t.Errorf("reference ignores trailing bytes, we say: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
			for _, observed := range []string{n.Decode, n.Addrs} {
				if observed != "" && !strings.HasSuffix(err.Error(), observed) {
					t.Errorf("error %q, the reference says %q", err, observed)
				}
			}
		})
	}
}

// The start of a valid message up to its addresses: array of three, the CID.
const (
	start3 = "83d82a58260001a9021220d384beb0c7fe5c89c22c2e14039cf2348cbfbbbb72e8034fe52c2a0bde20ca51"
	start4 = "84d82a58260001a9021220d384beb0c7fe5c89c22c2e14039cf2348cbfbbbb72e8034fe52c2a0bde20ca51"
)

func TestDecodeCBORTellsRightFromWrong(t *testing.T) {
	for _, tc := range []struct {
		name, hex string
		ok        bool
	}{
		{"no addresses", start3 + "8040", true},
		{"null extra data", start3 + "80f6", true},
		{"present but empty OrigPeer", start4 + "804060", true},
		{"one-byte length header", start3 + "80" + "5818" + strings.Repeat("00", 24), true},
		{"unknown protocol after a good one", start3 + "814b" + "047f000001" + "f7feff010102" + "40", true},
		{"unknown protocol of a later component hides bad bytes", start3 + "8145" + "f7feff01ff" + "40", true},
		{"empty", "", false},
		{"only the array header", "83", false},
		{"indefinite array", "9f" + start3[2:] + "8040ff", false},
		{"indefinite byte string", start3 + "805f4100ff", false},
		{"header not in shortest form", "9803" + start3[2:] + "8040", false},
		{"length not in shortest form", start3 + "80" + "5801" + "00", false},
		{"null CID", "83f68040", false},
		{"CID with another tag", "83d82b" + start3[6:] + "8040", false},
		{"CID without the zero byte", "83d82a420171" + "8040", false},
		{"empty CID", "83d82a40" + "8040", false},
		{"null addresses", start3 + "f640", false},
		{"address as text", start3 + "816161" + "40", false},
		{"empty address", start3 + "8140" + "40", false},
		{"more addresses announced than bytes follow", start3 + "991fff" + "40", false},
		{"more addresses than the limit", start3 + "992001" + strings.Repeat("41", 9000), false},
		{"byte string longer than the input", start3 + "805a00100000" + "00", false},
		{"byte string of 2^64-1 bytes", start3 + "805bffffffffffffffff", false},
		{"extra data as text", start3 + "806161", false},
		{"OrigPeer as bytes", start4 + "804041" + "61", false},
		{"OrigPeer longer than the limit", start4 + "8040792001" + strings.Repeat("61", 8193), false},
		{"OrigPeer missing", start4 + "8040", false},
		{"bad component before an unknown protocol", start3 + "8148" + "a50301ff" + "f7feff01" + "40", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := DecodeCBOR(unhex(t, tc.hex))
			if tc.ok && err != nil {
				t.Fatalf("refused: %v", err)
			}
			if !tc.ok && !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %+v, %v; want ErrMalformed", m, err)
			}
		})
	}
}

func TestDecodeJSONTellsRightFromWrong(t *testing.T) {
	link := `"Cid":{"/":"` + someAd + `"}`
	for _, tc := range []struct {
		name, text string
		ok         bool
	}{
		{"only a CID", `{` + link + `}`, true},
		{"keys in lower case", `{"cid":{"/":"` + someAd + `"},"addrs":null}`, true},
		{"unknown key", `{` + link + `,"More":[1]}`, true},
		{"unknown protocol skipped", `{` + link + `,"Addrs":["9/7/AQEC"]}`, true},
		{"empty", ``, false},
		{"null", `null`, false},
		{"no CID", `{"Addrs":null}`, false},
		{"null CID", `{"Cid":null}`, false},
		{"bad CID", `{"Cid":{"/":"x"}}`, false},
		{"address not base64", `{` + link + `,"Addrs":["*"]}`, false},
		{"malformed address", `{` + link + `,"Addrs":["BH8="]}`, false},
		{"two values", `{` + link + `}{}`, false},
		{"OrigPeer too long", `{` + link + `,"OrigPeer":"` + strings.Repeat("x", 8193) + `"}`, false},
		{"too many addresses", `{` + link + `,"Addrs":["BH8AAAE="` + strings.Repeat(`,"BH8AAAE="`, 8192) + `]}`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := DecodeJSON([]byte(tc.text))
			if tc.ok && err != nil {
				t.Fatalf("refused: %v", err)
			}
			if !tc.ok && !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %+v, %v; want ErrMalformed", m, err)
			}
		})
	}
}

func TestEncodeRefusesWhatReceiversRefuse(t *testing.T) {
	c := cid.MustParse(someAd)
	addr := mustAddrs(t, "/ip4/203.0.113.9/tcp/3103")[0]
	tooMany := make([]multiaddr.Multiaddr, maxAddrs+1)
	for i := range tooMany {
		tooMany[i] = addr
	}
	for name, m := range map[string]*Message{
		"no CID":             {},
		"empty address":      {Cid: c, Addrs: []multiaddr.Multiaddr{nil}},
		"too many addresses": {Cid: c, Addrs: tooMany},
		"OrigPeer too long":  {Cid: c, OrigPeer: strings.Repeat("x", maxTextBytes+1)},
	} {
		if b, err := m.EncodeCBOR(); err == nil {
			t.Errorf("%s: encoded to %d bytes of cbor", name, len(b))
		}
		if b, err := m.MarshalJSON(); err == nil {
			t.Errorf("%s: encoded to %d bytes of JSON", name, len(b))
		}
	}
	if _, err := (&Message{Cid: c, ExtraData: make([]byte, MaxMessageBytes)}).EncodeCBOR(); err == nil {
		t.Error("a message beyond 1 MiB was encoded")
	}
}

func TestDirectNamesOnePublisher(t *testing.T) {
	c := cid.MustParse(someAd)
	provider := mustPeer(t, providerID)
	for _, tc := range []struct {
		name      string
		addrs     []string
		wantAddrs []string
		ok        bool
	}{
		{"addresses", []string{"/ip4/203.0.113.9/tcp/3103/p2p/" + providerID, "/dns/a.example/https/p2p/" + providerID},
			[]string{"/ip4/203.0.113.9/tcp/3103", "/dns/a.example/https"}, true},
		{"only the publisher", []string{"/p2p/" + providerID}, nil, true},
		{"none", nil, nil, false},
		{"without peer ID", []string{"/ip4/203.0.113.9/tcp/3103"}, nil, false},
		{"one of two without peer ID", []string{"/p2p/" + providerID, "/ip4/203.0.113.9/tcp/3103"}, nil, false},
		{"two publishers", []string{"/p2p/" + providerID, "/p2p/" + publisherID}, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &Message{Cid: c, Addrs: mustAddrs(t, tc.addrs...), OrigPeer: publisherID}
			a, err := m.Direct()
			if !tc.ok {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("got %+v, %v; want ErrMalformed", a, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.Head != c || a.Publisher.ID != provider || !a.Direct {
				t.Errorf("got %+v", a)
			}
			if diff := cmp.Diff(tc.wantAddrs, addrStrings(a.Publisher.Addrs)); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGossipedPublisherIsOrigPeerElseFrom(t *testing.T) {
	c := cid.MustParse(someAd)
	provider, publisher := mustPeer(t, providerID), mustPeer(t, publisherID)
	m := &Message{Cid: c, Addrs: mustAddrs(t,
		"/ip4/203.0.113.9/tcp/3103", "/dns/a.example/https/p2p/"+providerID, "/dns/b.example/https/p2p/"+publisherID, "/p2p/"+providerID)}

	a, err := m.Gossiped(provider)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/ip4/203.0.113.9/tcp/3103", "/dns/a.example/https"}
	if diff := cmp.Diff(want, addrStrings(a.Publisher.Addrs)); diff != "" || a.Publisher.ID != provider || a.Direct {
		t.Errorf("got %+v; addresses (-want +got):\n%s", a, diff)
	}

	m.OrigPeer = publisherID
	if a, err = m.Gossiped(provider); err != nil || a.Publisher.ID != publisher {
		t.Errorf("with OrigPeer: got %+v, %v", a, err)
	}
	m.OrigPeer = "nobody"
	if _, err = m.Gossiped(provider); !errors.Is(err, ErrMalformed) {
		t.Errorf("with a bad OrigPeer: %v", err)
	}
	if _, err = (&Message{Cid: c}).Gossiped(""); !errors.Is(err, ErrMalformed) {
		t.Errorf("without any publisher: %v", err)
	}
}

func FuzzDecodeCBOR(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(unhex(f, v.CBORHex))
	}
	for _, n := range negatives(f) {
		f.Add(unhex(f, n.Hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeCBOR(b)
		checkDecoded(t, m, err)
	})
}

func FuzzDecodeJSON(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.JSON))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeJSON(b)
		checkDecoded(t, m, err)
	})
}

// checkDecoded holds what every decoder promises: a typed error, or a message
// that survives both encodings and can be read by both sets of rules.
func checkDecoded(t *testing.T, m *Message, err error) {
	if err != nil {
		if !errors.Is(err, ErrMalformed) {
			t.Fatalf("untyped error %v", err)
		}
		return
	}
	_, _ = m.Direct()
	_, _ = m.Gossiped("")
	raw, err := m.EncodeCBOR()
	if err != nil {
		t.Fatalf("encode what was decoded: %v", err)
	}
	text, err := m.MarshalJSON()
	if err != nil {
		t.Fatalf("encode what was decoded: %v", err)
	}
	again, err := DecodeCBOR(raw)
	if err != nil {
		t.Fatalf("decode own cbor: %v", err)
	}
	fromText, err := DecodeJSON(text)
	if err != nil {
		t.Fatalf("decode own JSON: %v", err)
	}
	for form, other := range map[string]*Message{"cbor": again, "JSON": fromText} {
		if other.Cid != m.Cid || !bytes.Equal(other.ExtraData, m.ExtraData) ||
			form == "cbor" && other.OrigPeer != m.OrigPeer || // JSON replaces bytes that are no UTF-8
			!cmp.Equal(addrStrings(other.Addrs), addrStrings(m.Addrs)) {
			t.Fatalf("%s: %+v became %+v", form, m, other)
		}
	}
}
