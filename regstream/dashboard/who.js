// Who this page is to the daemon: a token, kept while the tab is open, and sent in headers, never in an address.

const KEY = "regstream.token";
const $ = (id) => document.getElementById(id);
let token = "";
let locked = false;

try {
  token = sessionStorage.getItem(KEY) || "";
} catch {
  // A browser that keeps nothing: it is asked for again when the page is loaded again
}

export const headers = () => (token ? { authorization: `Bearer ${token}` } : {});

// A WebSocket takes no headers from a page: there the token is one of the subprotocols.
export function protocols() {
  const text = btoa(String.fromCharCode(...new TextEncoder().encode(token)));
  return token ? ["regstream", `regstream.token.${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`] : [];
}

// Whether nothing can be had before another token is given.
export const isLocked = () => locked;

export function ask(words = "") {
  locked = true;
  $("who-error").textContent = token ? words : "";
  if (!$("who-dialog").open) $("who-dialog").showModal();
}

// What this token is good for, as the daemon says.
export function known(role) {
  locked = false;
  document.body.dataset.role = role;
  $("who").hidden = !token;
  $("metrics").hidden = Boolean(token);
}

export function listen(again) {
  $("who").addEventListener("click", () => $("who-dialog").showModal());
  $("who-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("who-token").value.trim();
    $("who-token").value = "";
    try {
      sessionStorage.setItem(KEY, token);
    } catch {
      // As above
    }
    locked = false;
    $("who-dialog").close();
    again();
  });
}
