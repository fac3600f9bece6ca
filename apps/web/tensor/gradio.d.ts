// What Gradio hands to a script of a custom HTML component, and what our server functions take and return.

export interface Mode {
  name: string;
  words: string[];
}

export interface Scale {
  name: string;
  low: number;
  high: number;
  digits: number;
  unit: string;
  ticks: [number, string][];
  colors: number[];
}

export interface MapModel {
  size: [number, number];
  ratio: number;
  scales: Record<"mean" | "sd", Scale>;
  ticks: Record<"x" | "y", [number, string][]>;
  names: Record<"x" | "y", string>;
  mask: string;
}

export interface Model {
  title: string;
  about: string;
  modes: Mode[];
  across: number | null;
  up: number | null;
  sliders: number[];
  along: number;
  place: number[];
  map: MapModel | null;
}

export interface CurveAxis {
  left: number;
  right: number;
  stops: number[];
}

export interface Failure {
  error?: string;
}

export interface MapRequest {
  place: number[];
  show: "mean" | "sd";
}

export interface CurveRequest {
  place: number[];
  along: number;
  width: number;
}

export interface DesignRequest {
  place: number[];
  n: number;
}

export interface MapAnswer extends Failure {
  png: string;
}

export interface CurveAnswer extends Failure {
  svg: string;
  where: string;
  reading: string;
  axis: CurveAxis;
}

export interface DesignAnswer extends Failure {
  places: number[][];
  words: string[];
  summary: string;
}

export interface LayersAnswer extends Failure {
  coasts: string;
  dots: number[];
}

export interface FigureSection {
  title: string;
  description: string;
  figures: string[];
}

export interface Server {
  tensor_map(request: MapRequest): Promise<MapAnswer>;
  tensor_curve(request: CurveRequest): Promise<CurveAnswer>;
  tensor_next(request: DesignRequest): Promise<DesignAnswer>;
  tensor_figures(request: object): Promise<{ sections?: FigureSection[] }>;
  tensor_layers(request: object): Promise<LayersAnswer>;
}

declare global {
  const element: HTMLElement;
  const props: { value: Model };
  const server: Server;
}
