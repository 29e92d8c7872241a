/* The page protocol of copy_engine/ (docs/copy-engine.md), for spin.
 *
 * PAGES pages, EPOCHS branches of one guest that may overlap. Memory and images hold small version numbers: a guest write
 * increments a page's version. When an epoch begins, `instant` remembers what its image must hold.
 *
 * Bugs that the tests put in (-D):
 *   ARM_BEFORE_PAUSE    the epoch begins at the pre-arm: touched pages are not protected again
 *   LIFT_BEFORE_COPY    the fault thread lifts the protection, then saves the page
 *   NO_OVERWRITE_ORDER  a captured page is written without waiting for the bulk write in flight
 *   CAPTURE_SKIPS_IN_FLIGHT  a fault on a page in flight just lifts it
 *   LIFT_NEIGHBOUR_IN_FLIGHT  a neighbour that is in flight is lifted, too
 *   LIFT_NEIGHBOUR_PREARMED  a neighbour is lifted, though another epoch is pre-armed and believes it to be untouched
 */
#define PAGES 2
#define EPOCHS 2
#define MAX_WRITES 3

mtype = { armed, in_flight, captured, captured_in_flight, done };
mtype = { idle, prearmed, begun, over };

byte memory[PAGES];
bool protected[PAGES];
bool waiting;          /* the vCPU stands in a fault */
byte waiting_page;
bool paused;
bool in_step;          /* the guest is between deciding on a write and having done it: it can't be paused there */
byte writes;

typedef page_t { mtype state = armed; byte image; bool settled; bool touched; bool queued; byte bounce; byte instant };
typedef epoch_t { page_t page[PAGES]; mtype phase = idle; bool aborted };
epoch_t e[EPOCHS];

#define AT(k, p) e[k].page[p]
#define is_over(k) (e[k].phase == over)

/* The guest: writes any page, faults if it is protected. It can be paused between two writes, not within a fault. */
proctype guest() {
  byte p;
end:
  do
  :: atomic { writes < MAX_WRITES && !paused -> writes++; in_step = true; if :: p = 0 :: p = 1 fi }
     do
     :: atomic { !protected[p] -> memory[p]++; in_step = false; break }
     :: atomic { protected[p] -> waiting_page = p; waiting = true }
        !waiting
     od
  od
}

/* No epoch needs page p to be protected. */
#ifndef LIFT_NEIGHBOUR_IN_FLIGHT
#define needs(k, p) (AT(k, p).state == armed || AT(k, p).state == in_flight)
#else
#define needs(k, p) (AT(k, p).state == armed)
#endif
#ifndef LIFT_NEIGHBOUR_PREARMED
#define is_saved_for(k, p) (e[k].phase == idle || is_over(k) || (e[k].phase == begun && !needs(k, p)))
#else
#define is_saved_for(k, p) (e[k].phase != begun || !needs(k, p))
#endif
#define is_saved(p) (is_saved_for(0, p) && is_saved_for(1, p))

/* The fault thread serves one fault: for every epoch, save and mark; then lift and wake. If the page was saved already, its
 * neighbour is lifted with it if that is saved, too (in the code: those of a block). */
inline serve_fault() {
  byte k = 0;
  byte f = waiting_page;
  byte saved;
  if
  :: is_saved(f) && is_saved(1 - f) -> protected[1 - f] = false
  :: else
  fi;
#ifdef LIFT_BEFORE_COPY
  atomic { protected[f] = false; waiting = false }
#endif
  do
  :: k < EPOCHS ->
     if
     :: e[k].phase == prearmed -> AT(k, f).touched = true
     :: e[k].phase == begun ->
        saved = memory[f];
        if
        :: atomic { AT(k, f).state == armed -> AT(k, f).state = captured; AT(k, f).bounce = saved; AT(k, f).queued = true }
#ifndef CAPTURE_SKIPS_IN_FLIGHT
        :: atomic { AT(k, f).state == in_flight -> AT(k, f).state = captured_in_flight; AT(k, f).bounce = saved; AT(k, f).queued = true }
#else
        :: AT(k, f).state == in_flight
#endif
        :: AT(k, f).state != armed && AT(k, f).state != in_flight
        fi
     :: else
     fi;
     k++
  :: else -> break
  od;
#ifndef LIFT_BEFORE_COPY
  atomic { protected[f] = false; waiting = false }
#endif
  k = 0; f = 0; saved = 0
}

/* All protection changes: faults, pre-arm, re-arm, the final lifting. Commands arrive as flags set by the coordinators. */
bool ask_prearm[EPOCHS], ask_rearm[EPOCHS], ask_detach[EPOCHS];

inline lift_all_if_unused() {
  if
  :: atomic { (e[0].phase == idle || is_over(0)) && (e[1].phase == idle || is_over(1)) ->
       protected[0] = false; protected[1] = false; waiting = false }
  :: else
  fi
}

proctype fault_thread() {
  byte c;
end:
  do
  :: waiting -> serve_fault()
  :: ask_prearm[0] || ask_prearm[1] ->
     c = (ask_prearm[0] -> 0 : 1);
     e[c].phase = prearmed;
     protected[0] = true;            /* slice by slice: faults of other pages may come between, as steps of the guest do */
     protected[1] = true;
     ask_prearm[c] = false; c = 0
  :: ask_rearm[0] || ask_rearm[1] ->
     c = (ask_rearm[0] -> 0 : 1);
     atomic {
#ifndef ARM_BEFORE_PAUSE
       if :: AT(c, 0).touched -> protected[0] = true :: else fi;
       if :: AT(c, 1).touched -> protected[1] = true :: else fi;
#endif
       e[c].phase = begun; ask_rearm[c] = false; c = 0
     }
  :: ask_detach[0] || ask_detach[1] ->
     c = (ask_detach[0] -> 0 : 1);
     e[c].phase = over;
     lift_all_if_unused();
     ask_detach[c] = false; c = 0
  od
}

/* The copy thread of one epoch: claims, writes (which reads RAM at any moment in between), settles, overwrites. */
inline write_capture(k, p) {
  AT(k, p).image = AT(k, p).bounce;
  AT(k, p).queued = false;
  AT(k, p).settled = true
}

inline copy_page(k, p) {
  if
  :: atomic { AT(k, p).state == armed -> AT(k, p).state = in_flight }
     AT(k, p).image = memory[p];     /* the disk reads RAM */
#ifdef NO_OVERWRITE_ORDER
     if
     :: AT(k, p).queued -> AT(k, p).image = memory[p]; AT(k, p).queued = false; AT(k, p).settled = true
     :: else
     fi;
#endif
     if
     :: atomic { AT(k, p).state == in_flight -> AT(k, p).state = done; AT(k, p).settled = true }
     :: AT(k, p).state == captured_in_flight ->
        if :: AT(k, p).queued -> write_capture(k, p) :: else fi
     fi
  :: AT(k, p).state == captured -> (AT(k, p).queued); write_capture(k, p)
  fi
}

/* One branch from begin to end; may be aborted after any step. */
proctype coordinator(byte k) {
  byte first;
  ask_prearm[k] = true; !ask_prearm[k];
  if :: goto undo :: skip fi;
  /* the pause sections of one VM never overlap */
  atomic { !paused -> paused = true }
  !in_step;
  ask_rearm[k] = true;
  atomic {
    !ask_rearm[k] -> AT(k, 0).instant = memory[0]; AT(k, 1).instant = memory[1]
  }
  paused = false;
  /* What the guest wrote to goes first, wherever that is. The pages are alike: all orders of two epochs are here. */
  if :: first = 0 :: k == 1 -> first = 1 fi;
  if :: goto undo :: skip fi;
  copy_page(k, first);
  if :: goto undo :: skip fi;
  copy_page(k, (1 - first));
  assert(AT(k, 0).settled && AT(k, 1).settled);
  assert(AT(k, 0).image == AT(k, 0).instant);
  assert(AT(k, 1).image == AT(k, 1).instant);
undo:
  ask_detach[k] = true; !ask_detach[k]
}

init {
  atomic { run guest(); run fault_thread(); run coordinator(0); run coordinator(1) }
  /* At rest: both branches over, the guest neither protected nor waiting. */
  (is_over(0) && is_over(1) && !ask_detach[0] && !ask_detach[1]);
  assert(!protected[0] && !protected[1]);
}
