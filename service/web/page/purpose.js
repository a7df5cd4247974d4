// What the search is for, such as a case number: asked for where the service wants to know, and sent with every drawing.

import { byId } from "./dom.js";

const KEPT_AS = "mgrl-purpose"; // in sessionStorage, as the drawing

export class Purpose extends EventTarget {
  value = sessionStorage.getItem(KEPT_AS) ?? "";

  constructor() {
    super();
    byId("purpose").value = this.value;
    byId("purpose-form").hidden = !this.value; // what is sent is seen
    byId("purpose-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#set(byId("purpose").value.trim());
    });
  }

  ask() {
    byId("purpose-form").hidden = false;
  }

  #set(value) {
    this.value = value;
    try {
      sessionStorage.setItem(KEPT_AS, value);
    } catch {
      // Full: it is asked for again after a reload.
    }
    this.dispatchEvent(new Event("change"));
  }
}
